//go:build vmguest

package guest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// inner is a box with a workload, and a tunnel to a node behind its uplink.
//
//	workload 10.0.1.10 --- wl1 | box | up0 198.18.0.1 --- 198.18.0.2 up1 | far
//	fd00:1::10                 |     | tun1 ========================= tun1 | 10.20.0.1, fd00:20::1
type inner struct {
	box, far, workload *node
	tc                 *tc.Subsystem
	dir                string // of the pins
	wire               *capture
	seen               map[string]map[abi.Reason]uint64 // counters as last read
}

const (
	boxMTU, farMTU = 1300, 1400 // of tun1; the far end knows nothing of the box's
	innerWeb       = 80         // policy.ingress accepts these two ports
	innerTransit   = 9
)

func newInner(t *testing.T) *inner {
	t.Helper()
	dir := dirs.Lend(t, func() string { return "inner" }) // always the same roles and matrix
	s := &inner{dir: dir, box: newNode(t, netns.New), far: newNode(t, netns.New), workload: newNode(t, netns.New), seen: map[string]map[abi.Reason]uint64{}}
	for _, n := range []*node{s.box, s.far, s.workload} {
		n.do(t, func() error {
			return settings("net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1", "net/ipv6/conf/all/accept_dad=0", "net/ipv6/conf/default/accept_dad=0")
		})
		n.setUp(t, "lo")
	}
	for _, l := range []struct {
		name, peer string
		other      *node
	}{{"up0", "up1", s.far}, {"wl1", "eth0", s.workload}} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = l.name
		if err := s.box.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: l.peer, PeerNamespace: netlink.NsFd(l.other.ns)}); err != nil {
			t.Fatal(err)
		}
	}
	s.box.setUp(t, "up0", "198.18.0.1/24", "2001:db8::1/64")
	s.far.setUp(t, "up1", "198.18.0.2/24", "2001:db8::2/64")
	s.box.setUp(t, "wl1", "169.254.1.1/32", "fe80::1/64")
	s.workload.setUp(t, "eth0", "10.0.1.10/32", "fd00:1::10/128")
	s.box.route(t, "10.0.1.10/32", "", "wl1")
	s.box.route(t, "fd00:1::10/128", "", "wl1")
	s.workload.route(t, "169.254.1.1/32", "", "eth0")
	s.workload.route(t, "0.0.0.0/0", "169.254.1.1", "eth0")
	s.workload.route(t, "::/0", "fe80::1", "eth0")
	s.box.route(t, "0.0.0.0/0", "198.18.0.2", "up0")
	s.box.route(t, "::/0", "2001:db8::2", "up0")
	s.wire = s.box.capture(t, "up0")
	return s
}

// through gives the ends of the tunnel, which are there, their addresses and routes.
func (s *inner) through(t *testing.T) {
	t.Helper()
	for n, mtu := range map[*node]int{s.box: boxMTU, s.far: farMTU} {
		if err := n.nl.LinkSetMTU(n.link(t, "tun1"), mtu); err != nil {
			t.Fatal(err)
		}
	}
	s.box.setUp(t, "tun1", "10.200.0.1/32", "fd00:200::1/128")
	s.far.setUp(t, "tun1", "10.20.0.1/32", "fd00:20::1/128")
	for _, to := range []string{"10.20.0.0/16", "fd00:20::/64"} {
		s.box.route(t, to, "", "tun1")
	}
	for _, to := range []string{"10.0.1.0/24", "10.200.0.0/24", "203.0.113.0/24", "fd00:1::/64", "fd00:200::/64"} {
		s.far.route(t, to, "", "tun1")
	}
	s.far.serveEcho(t, "10.20.0.1", "fd00:20::1")
	s.load(t)
}

// load has everything dropped that the tunnel itself, echoes and two ports do not need. The tunnel's own endpoint is inside a strict prefix.
func (s *inner) load(t *testing.T) {
	t.Helper()
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	ports := func(port uint16) []classify.PortRange { return []classify.PortRange{{First: port, Last: port}} }
	underlay := list("198.18.0.0/24", "2001:db8::/64")
	open := classify.Policy{Default: classify.Accept}
	g := tc.Generation{
		Self: addrs("10.200.0.1", "169.254.1.1", "198.18.0.1", "2001:db8::1", "fd00:200::1", "fe80::1"),
		System: classify.Policy{Name: "system", Rules: []classify.Rule{
			{ID: 1, Name: "esp", From: underlay, To: underlay, Protocol: unix.IPPROTO_ESP, Action: classify.Accept},
			{ID: 2, Name: "wireguard", From: underlay, To: underlay, Protocol: unix.IPPROTO_UDP, Ports: ports(51820), Action: classify.Accept}}},
		Ingress: classify.Policy{Name: "ingress", Default: classify.Drop, Rules: []classify.Rule{
			{ID: 3, Name: "web", Protocol: unix.IPPROTO_TCP, Ports: ports(innerWeb), Action: classify.Accept},
			{ID: 4, Name: "transit", Protocol: unix.IPPROTO_UDP, Ports: ports(innerTransit), Action: classify.Accept}}},
		Egress: classify.Policy{Name: "egress", Default: classify.Drop, Rules: []classify.Rule{
			{ID: 5, Name: "echo", Protocol: unix.IPPROTO_UDP, Ports: ports(7), Action: classify.Accept}}},
		Workloads: []tc.Workload{{Name: "one", Interface: "wl1", Addresses: addrs("10.0.1.10", "fd00:1::10"), Ingress: open, Egress: open}},
		Strict:    append(list("10.20.0.0/16", "fd00:20::/64"), underlay...),
		FlowSlots: 4096, RuleSlots: 16,
	}
	for _, pair := range [][2]tc.Role{{tc.RoleWorkload, tc.RoleTunnel}, {tc.RoleTunnel, tc.RoleWorkload}, {tc.RoleTunnel, tc.RoleUplink}, {tc.RoleWorkload, tc.RoleUplink}} {
		g.Matrix[pair[0]][pair[1]] = true
	}
	s.box.do(t, func() error {
		s.tc = tc.New(quiet(), tc.Options{BPFDir: s.dir})
		return converge(s.tc, tc.State{Generation: g, Digest: g.Digest(), Interfaces: []tc.Interface{
			{Name: "tun1", Role: tc.RoleTunnel, Judge: true, Encrypted: true, ClampMSS: true},
			{Name: "up0", Role: tc.RoleUplink, Judge: true}, {Name: "wl1", Role: tc.RoleWorkload}}})
	})
}

// counted are the reasons that an interface of the box has counted since the last call.
func (s *inner) counted(t *testing.T, name string) map[abi.Reason]uint64 {
	t.Helper()
	out := map[abi.Reason]uint64{}
	s.box.do(t, func() error {
		all, err := s.tc.Counters(context.Background())
		for _, i := range all.Interfaces {
			for reason, c := range i.Reasons {
				if i.Name == name && c.Packets > s.seen[name][reason] {
					out[reason] = c.Packets - s.seen[name][reason]
				}
			}
			if i.Name == name {
				s.seen[name] = map[abi.Reason]uint64{}
				for reason, c := range i.Reasons {
					s.seen[name][reason] = c.Packets
				}
			}
		}
		return err
	})
	return out
}

// expects waits until an interface has counted a reason, while f goes on.
func (s *inner) expects(t *testing.T, name string, reason abi.Reason, f func()) {
	t.Helper()
	last := s.counted(t, name)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		f()
		if last = s.counted(t, name); last[reason] > 0 {
			return
		}
	}
	t.Errorf("%s never counts %s, but %v", name, reason, last)
}

// clear is how many frames with the marker have crossed the wire in clear, in either direction.
func (s *inner) clear(t *testing.T) int {
	t.Helper()
	fences := func() (fences, clear int) {
		s.wire.mu.Lock()
		defer s.wire.mu.Unlock()
		return s.wire.fences, s.wire.clear
	}
	c := s.far.dial(t, "198.18.0.1")
	before, _ := fences()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		c.Write(fence)
		if now, clear := fences(); now > before {
			return clear
		}
	}
	t.Fatal("the capture has not seen the fence")
	return 0
}

func send(t *testing.T, from *node, to, port string) func() {
	t.Helper()
	var c net.Conn
	from.do(t, func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(to, port))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return func() { c.Write(marker) }
}

// judged is what holds for every kind of tunnel.
func (s *inner) judged(t *testing.T) {
	for _, address := range []string{"10.20.0.1", "fd00:20::1"} {
		s.workload.answers(t, address)
		s.box.answers(t, address)
	}
	tunnel, uplink := s.counted(t, "tun1"), s.counted(t, "up0")
	for _, want := range []abi.Reason{abi.ReasonJudged, abi.ReasonRuleAccept, abi.ReasonStackL3, abi.ReasonLocal} {
		if tunnel[want] == 0 {
			t.Errorf("tun1 has counted no %s, but %v", want, tunnel)
		}
	}
	if uplink[abi.ReasonSystem] == 0 || uplink[abi.ReasonStrictTunnel] != 0 {
		t.Errorf("up0 has counted %v, want the encrypted packets as system, and none of them stopped", uplink)
	}

	// What comes out of the tunnel is judged there, and forwarded as what came in by it.
	s.expects(t, "tun1", abi.ReasonDefaultDrop, send(t, s.far, "10.0.1.10", "1"))
	s.expects(t, "tun1", abi.ReasonDefaultDrop, send(t, s.far, "fd00:1::10", "1"))
	s.expects(t, "up0", abi.ReasonForwarded, send(t, s.far, "203.0.113.9", "9"))
	s.filtered(t)
	s.mss(t, s.workload, "10.0.1.10", s.far, "10.20.0.1", 7777)
	s.mss(t, s.workload, "fd00:1::10", s.far, "fd00:20::1", 7777)
	s.mss(t, s.far, "10.20.0.1", s.workload, "10.0.1.10", innerWeb)
	s.mss(t, s.far, "fd00:20::1", s.workload, "fd00:1::10", innerWeb)
	if n := s.counted(t, "up0"); n[abi.ReasonStrictTunnel] != 0 || n[abi.ReasonDefaultDrop] != 0 {
		t.Errorf("up0 has counted %v", n)
	}
	transit := 0
	if n := s.clear(t); n == 0 {
		t.Error("the capture is blind: it has not seen what was forwarded to the uplink in clear")
	} else {
		transit = n
	}

	// Without the tunnel its prefixes lead by the default route, and nothing of them leaves.
	if err := s.box.nl.LinkDel(s.box.link(t, "tun1")); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"10.20.0.1", "fd00:20::1"} {
		s.expects(t, "up0", abi.ReasonStrictTunnel, send(t, s.workload, address, "7"))
		s.expects(t, "up0", abi.ReasonStrictTunnel, send(t, s.box, address, "7"))
	}
	if n := s.clear(t); n != transit {
		t.Errorf("%d frames have left in clear", n-transit)
	}
}

// mss opens a connection by the tunnel, sends in both directions and looks at the segments of both ends.
func (s *inner) mss(t *testing.T, dials *node, from string, serves *node, to string, port int) {
	t.Helper()
	var l net.Listener
	serves.do(t, func() (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(to), Port: port})
		return err
	})
	defer l.Close()
	var c net.Conn
	dials.do(t, func() (err error) {
		d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err = d.Dial("tcp", l.Addr().String())
		return err
	})
	defer c.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	most := uint32(boxMTU - 40)
	if netip.MustParseAddr(to).Is6() {
		most -= 20
	}
	for what, ends := range map[string][2]net.Conn{"who dials": {c, served}, "who serves": {served, c}} {
		if got := sendMSS(t, ends[0]); got > most || got < most-40 {
			t.Errorf("%s to %s: %s sends segments of %d bytes, want %d", from, to, what, got, most)
		}
		payload := bytes.Repeat(marker, 1000)
		go func() { _, _ = ends[0].Write(payload) }()
		_ = ends[1].SetDeadline(time.Now().Add(patience))
		if _, err := io.CopyN(io.Discard, ends[1], int64(len(payload))); err != nil {
			t.Errorf("%s to %s: %s: %v", from, to, what, err)
		}
	}
}

// sendMSS is the kernel's own idea of the largest segment that it sends.
func sendMSS(t *testing.T, c net.Conn) (mss uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if failed = err; err == nil {
			mss = info.Snd_mss
		}
	})
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return mss
}
