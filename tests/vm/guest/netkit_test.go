//go:build vmguest

package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"sluice/control/host"
	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// kit is a box with a veth to a ToR as its uplink, and a workload behind a netkit.
type kit struct {
	box, tor, workload *node
	dir                string // of the pins
	tc                 *tc.Subsystem
}

const (
	kitWorkload4, kitWorkload6 = "10.1.0.10", "fd00:1::10"
	kitTor4, kitTor6           = "198.18.60.2", "2001:db8:60::2"
)

func newKit(t *testing.T, mode netlink.NetkitMode) *kit {
	t.Helper()
	dir := dirs.Lend(t, func() string { return "kit" }) // always the same roles and matrix
	k := &kit{box: newNode(t, netns.New), tor: newNode(t, netns.New), workload: newNode(t, netns.New), dir: dir}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	if err := k.box.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "tor0", PeerNamespace: netlink.NsFd(k.tor.ns)}); err != nil {
		t.Fatal(err)
	}
	attrs.Name = "nk0"
	primary := &netlink.Netkit{LinkAttrs: attrs, Mode: mode}
	peer := netlink.NewLinkAttrs()
	peer.Name = "nk1"
	primary.SetPeerAttrs(&peer)
	if err := k.box.nl.LinkAdd(primary); err != nil {
		t.Fatalf("this kernel makes no netkit (CONFIG_NETKIT, 6.7): %v", err)
	}
	k.peerIsHere(t, true)
	inside, err := k.box.nl.LinkByName("nk1")
	if err == nil {
		err = k.box.nl.LinkSetNsFd(inside, int(k.workload.ns))
	}
	if err != nil {
		t.Fatal(err)
	}
	k.peerIsHere(t, false)
	k.box.setUp(t, "up0", "198.18.60.1/24", "2001:db8:60::1/64")
	k.box.setUp(t, "nk0", "169.254.1.1/32", "fe80::1/64")
	k.tor.setUp(t, "tor0", kitTor4+"/24", kitTor6+"/64")
	k.workload.setUp(t, "nk1", kitWorkload4+"/32", kitWorkload6+"/128")
	k.route(t, k.box, "nk0", kitWorkload4+"/32", "")
	k.route(t, k.box, "nk0", kitWorkload6+"/128", "")
	k.route(t, k.tor, "tor0", "10.1.0.0/24", "198.18.60.1")
	k.route(t, k.tor, "tor0", "fd00:1::/64", "2001:db8:60::1")
	k.route(t, k.workload, "nk1", "0.0.0.0/0", "169.254.1.1")
	k.route(t, k.workload, "nk1", "::/0", "fe80::1")
	k.box.do(t, func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	})
	return k
}

// peerIsHere looks at what the compiler is told of both ends.
func (k *kit) peerIsHere(t *testing.T, want bool) {
	t.Helper()
	k.box.do(t, func() error {
		h, err := host.New(quiet(), host.Options{StateDir: t.TempDir()})
		if err != nil {
			return err
		}
		defer h.Close()
		facts, err := h.GatherFacts(context.Background())
		for _, l := range facts.Links {
			if l.Name == "nk0" && (l.Kind != "netkit" || l.PeerHere != want) {
				t.Errorf("%+v, want a netkit whose peer is here: %v", l, want)
			}
		}
		return err
	})
}

func (k *kit) route(t *testing.T, n *node, link, to, via string) {
	t.Helper()
	l, err := n.nl.LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	_, prefix, err := net.ParseCIDR(to)
	if err != nil {
		t.Fatal(err)
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: prefix}
	if via != "" {
		r.Gw = netip.MustParseAddr(via).AsSlice()
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	if err := n.nl.RouteReplace(r); err != nil {
		t.Fatalf("route %s via %q on %s: %v", to, via, link, err)
	}
}

// live loads and attaches the programs.
func (k *kit) live(t *testing.T, stack bool) {
	t.Helper()
	k.tc = tc.New(quiet(), tc.Options{BPFDir: k.dir})
	k.box.do(t, func() error {
		accept := func(name string) classify.Policy { return classify.Policy{Name: name, Default: classify.Accept} }
		g := tc.Generation{
			Self:     []netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("198.18.60.1"), netip.MustParseAddr("2001:db8:60::1"), netip.MustParseAddr("fe80::1")},
			Failsafe: classify.Policy{Name: "failsafe", Default: classify.Continue}, System: classify.Policy{Name: "system", Default: classify.Continue},
			Ingress: accept("ingress"), Egress: accept("egress"), FlowSlots: 4096, RuleSlots: 64,
			Workloads: []tc.Workload{{Name: "w", Interface: "nk0", Ingress: accept("workload/w/ingress"), Egress: accept("workload/w/egress"),
				Addresses: []netip.Addr{netip.MustParseAddr(kitWorkload4), netip.MustParseAddr(kitWorkload6)}}},
		}
		g.Matrix[tc.RoleUplink][tc.RoleWorkload], g.Matrix[tc.RoleWorkload][tc.RoleUplink] = true, true
		return converge(k.tc, tc.State{Interfaces: []tc.Interface{{Name: "nk0", Role: tc.RoleWorkload, Stack: stack}, {Name: "up0", Role: tc.RoleUplink}},
			Generation: g, Digest: g.Digest()})
	})
}

func (k *kit) count(t *testing.T, link string, reason abi.Reason) (n uint64) {
	t.Helper()
	k.box.do(t, func() error {
		c, err := k.tc.Counters(context.Background())
		for _, i := range c.Interfaces {
			if i.Name == link {
				n = i.Reasons[reason].Packets
			}
		}
		return err
	})
	return n
}

// TestNetkitCarriesAWorkload: redirect_peer into either mode, and what the workload sends.
func TestNetkitCarriesAWorkload(t *testing.T) {
	for name, mode := range map[string]netlink.NetkitMode{"L2": netlink.NETKIT_MODE_L2, "L3": netlink.NETKIT_MODE_L3} {
		t.Run(name, func(t *testing.T) {
			step := func(what string) { fmt.Println("netkit", name, what) } // how far a guest came that was killed
			k := newKit(t, mode)
			step("is there")
			k.live(t, false)
			step("has programs")
			k.workload.serveEcho(t, kitWorkload4, kitWorkload6)
			k.tor.serveEcho(t, kitTor4, kitTor6)
			for _, address := range []string{kitWorkload4, kitWorkload6} {
				before := k.count(t, "up0", abi.ReasonDelivered)
				k.tor.answers(t, address)
				step("answered at " + address)
				if k.count(t, "up0", abi.ReasonDelivered) == before {
					t.Errorf("nothing was delivered to %s by redirect", address)
				}
			}
			for _, address := range []string{kitTor4, kitTor6} {
				before := k.count(t, "nk0", abi.ReasonForwarded)
				k.workload.answers(t, address)
				step("has an answer of " + address)
				if k.count(t, "nk0", abi.ReasonForwarded) == before {
					t.Errorf("what went to %s was not forwarded by redirect", address)
				}
			}
			if mode == netlink.NETKIT_MODE_L2 {
				return
			}
			// path: stack takes the same traffic through the kernel's own forwarding.
			k.live(t, true)
			k.tor.answers(t, kitWorkload4)
			k.workload.answers(t, kitTor6)
			for _, link := range []string{"up0", "nk0"} {
				if k.count(t, link, abi.ReasonStackPath) == 0 {
					t.Errorf("%s: nothing took the stack", link)
				}
			}
		})
	}
}
