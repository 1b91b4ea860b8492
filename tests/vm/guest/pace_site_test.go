//go:build vmguest

package guest

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/control/host"
	"sluice/tc"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// pacedSite is a box with a workload and a LAN on one side and the outside on the other.
//
//	workload 10.0.1.10 --- wl1 | box | up0 198.18.0.1 --- 198.18.0.2 outside
//	lan      10.0.2.10 --- lan |     |
type pacedSite struct {
	box, outside, workload, lan *node
	host                        *host.Host
	tc                          *tc.Subsystem
	dir                         string
}

const outside4 = "198.18.0.2"

// newPacedSite bounds what wl1 and lan send. The uplink has four transmit queues.
func newPacedSite(t *testing.T, rate uint64) *pacedSite {
	t.Helper()
	s := &pacedSite{box: newNode(t, netns.New), outside: newNode(t, netns.New), workload: newNode(t, netns.New), lan: newNode(t, netns.New),
		dir: filepath.Join("/sys/fs/bpf", "paced")}
	s.box.do(t, func() error { return settings("net/ipv4/ip_forward=1") })
	for _, l := range []struct {
		name   string
		peer   *node
		queues int
	}{{"up0", s.outside, 4}, {"wl1", s.workload, 1}, {"lan", s.lan, 1}} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = l.name, l.queues, l.queues
		if err := s.box.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(l.peer.ns)}); err != nil {
			t.Fatal(err)
		}
	}
	s.box.setUp(t, "up0", "198.18.0.1/24")
	s.box.setUp(t, "wl1", "169.254.1.1/32")
	s.box.setUp(t, "lan", "10.0.2.1/24")
	s.outside.setUp(t, "eth0", outside4+"/24")
	s.workload.setUp(t, "eth0", "10.0.1.10/32")
	s.lan.setUp(t, "eth0", "10.0.2.10/24")
	s.box.route(t, "10.0.1.10/32", "", "wl1")
	s.outside.route(t, "10.0.0.0/16", "198.18.0.1", "eth0")
	s.workload.route(t, "169.254.1.1/32", "", "eth0")
	s.workload.route(t, "0.0.0.0/0", "169.254.1.1", "eth0")
	s.lan.route(t, "0.0.0.0/0", "10.0.2.1", "eth0")
	s.pace(t, rate)
	return s
}

func (n *node) route(t *testing.T, to, via, link string) {
	t.Helper()
	l, err := n.nl.LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := netlink.ParseIPNet(to)
	if err != nil {
		t.Fatal(err)
	}
	r := &netlink.Route{Dst: dst, LinkIndex: l.Attrs().Index, Scope: unix.RT_SCOPE_LINK}
	if via != "" {
		r.Gw, r.Scope = netip.MustParseAddr(via).AsSlice(), unix.RT_SCOPE_UNIVERSE
	}
	if err := n.nl.RouteAdd(r); err != nil {
		t.Fatal(err)
	}
}

// pace puts fq on the uplink and loads the programs, as the engine would.
func (s *pacedSite) pace(t *testing.T, rate uint64) {
	t.Helper()
	s.box.do(t, func() error {
		queues, err := host.QueuesOf(context.Background(), []string{"up0"})
		if err != nil || queues["up0"].NoFQ != "" {
			t.Errorf("the uplink's queue is %+v, %v", queues, err)
		}
		if s.host, err = host.New(quiet(), host.Options{StateDir: t.TempDir()}); err != nil {
			return err
		}
		if err := converge(s.host, host.State{Qdiscs: []host.Qdisc{{Link: "up0", FQ: true}}}); err != nil {
			return err
		}
		open := classify.Policy{Default: classify.Accept}
		g := tc.Generation{Self: []netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("10.0.2.1")},
			Ingress: open, Egress: open, FlowSlots: 4096, RuleSlots: 16,
			Workloads: []tc.Workload{{Name: "one", Interface: "wl1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.10")}, Ingress: open, Egress: open}},
			Paced:     []tc.Paced{{Interface: "lan", Rate: rate}, {Interface: "wl1", Rate: rate}}}
		for _, inside := range []tc.Role{tc.RoleWorkload, tc.RoleDownstream} {
			g.Matrix[tc.RoleUplink][inside], g.Matrix[inside][tc.RoleUplink] = true, true
		}
		s.tc = tc.New(quiet(), tc.Options{BPFDir: s.dir})
		return converge(s.tc, tc.State{Generation: g, Digest: g.Digest(), Interfaces: []tc.Interface{
			{Name: "lan", Role: tc.RoleDownstream}, {Name: "up0", Role: tc.RoleUplink, Judge: true, FQ: true}, {Name: "wl1", Role: tc.RoleWorkload}}})
	})
	t.Cleanup(func() {
		s.host.Close()
		if err := pin.At(s.dir).RemoveAll(); err != nil {
			t.Error(err)
		}
	})
}

// qdiscs are those of a link, the root's first. fq has its limit per flow behind it.
func (s *pacedSite) qdiscs(t *testing.T, link string) string {
	t.Helper()
	up0, err := s.box.nl.LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.box.nl.QdiscList(up0)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, q := range list {
		kind := q.Type()
		if fq, ok := q.(*netlink.Fq); ok {
			kind += fmt.Sprint(fq.FlowPacketLimit)
		}
		if q.Attrs().Parent == netlink.HANDLE_ROOT {
			kinds = append([]string{kind}, kinds...)
		} else {
			kinds = append(kinds, kind)
		}
	}
	return strings.Join(kinds, " ")
}

// pacing is what tc says of an interface.
func (s *pacedSite) pacing(t *testing.T, name string) (out tc.Pacing) {
	t.Helper()
	s.box.do(t, func() error {
		all, err := s.tc.Pacing(context.Background())
		for _, p := range all {
			if p.Interface == name {
				out = p
			}
		}
		return err
	})
	if out.Rate == 0 {
		t.Fatalf("%s is not paced", name)
	}
	return out
}
