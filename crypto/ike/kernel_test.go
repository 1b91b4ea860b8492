//go:build vmguest

package ike

import (
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel's own ESP, with xfrm interfaces, in the VM. What has no policy there goes by the default route, in clear: a
// capture that sees nothing is a proof.

const (
	interfaceID = 0x51c00007
	mark        = 0x100
)

// newKernelPair is a pair over the family of local; the charons run, and nothing is loaded.
func newKernelPair(t *testing.T, local, remote string, encapsulate bool) *pair {
	t.Helper()
	p := &pair{a: &end{space: newSpace(t)}, b: &end{space: newSpace(t)}}
	p.a.connect(t, p.b.space)
	p.a.Address(t, "lo", "10.10.0.1/32", "10.11.0.1/32", "fd00:10::1/128")
	p.b.Address(t, "lo", "10.20.0.1/32", "10.21.0.1/32", "fd00:20::1/128")
	p.b.serveEcho(t, "10.20.0.1", "10.21.0.1", "fd00:20::1", "198.18.0.2")
	psk := newKey(t)
	p.a.conn = Conn{
		Tunnel: "tun0", Peer: "b", Local: netip.MustParseAddr(local), Remote: netip.AddrPortFrom(netip.MustParseAddr(remote), 0),
		LocalID: "edge-a", RemoteID: "edge-b", SecretFile: psk, Prefixes: prefixes("10.20.0.0/16", "fd00:20::/64"),
		InterfaceID: interfaceID, Mark: mark, ReplayWindow: 1024, Encapsulate: encapsulate,
	}
	p.b.conn = p.a.conn
	p.b.conn.Peer, p.b.conn.LocalID, p.b.conn.RemoteID = "a", "edge-b", "edge-a"
	p.b.conn.Local, p.b.conn.Remote = p.a.conn.Remote.Addr(), netip.AddrPortFrom(p.a.conn.Local, 0)
	p.b.conn.Prefixes = prefixes("10.10.0.0/15", "fd00:10::/64")
	p.a.tunnel(t, "198.18.0.2", "2001:db8::2", "10.20.0.0/15", "fd00:20::/64")
	p.b.tunnel(t, "198.18.0.1", "2001:db8::1", "10.10.0.0/15", "fd00:10::/64")
	p.wire = p.a.capture(t, "up0")
	for _, e := range []*end{p.a, p.b} {
		e.charon = startCharon(t, e.space, netlinked)
		e.client = New(e.charon.socket, logTo(t))
		e.run(t)
	}
	return p
}

// tunnel makes the interface with routes into it, and default routes in clear.
func (e *end) tunnel(t *testing.T, gateway4, gateway6 string, routes ...string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "tun0", 1380
	if err := e.LinkAdd(&netlink.Xfrmi{LinkAttrs: attrs, Ifid: interfaceID}); err != nil {
		t.Fatal(err)
	}
	e.Up(t, "tun0")
	link, err := e.LinkByName("tun0")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		_, dst, err := net.ParseCIDR(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst}); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range []string{gateway4, gateway6} {
		if err := e.RouteAdd(&netlink.Route{Gw: net.ParseIP(g)}); err != nil {
			t.Fatal(err)
		}
	}
}

// nothingInClear is asked at the end, and shows that the capture would have seen it.
func (p *pair) nothingInClear(t *testing.T) {
	t.Helper()
	if clear, _, _ := p.wire.seen(t); clear != 0 {
		t.Errorf("%d frames in clear", clear)
	}
	p.a.answers(t, "198.18.0.1", "198.18.0.2")
	if clear, _, _ := p.wire.seen(t); clear == 0 {
		t.Error("the capture is blind: it has not seen what was sent in clear")
	}
}

func TestKernelTrafficOfEveryFamily(t *testing.T) {
	for _, c := range []struct {
		name, local, remote string
		encapsulate         bool
	}{
		{"over IPv4", "198.18.0.1", "198.18.0.2", false},
		{"over IPv6", "2001:db8::1", "2001:db8::2", false},
		{"in UDP over IPv4", "198.18.0.1", "198.18.0.2", true},
		{"in UDP over IPv6", "2001:db8::1", "2001:db8::2", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newKernelPair(t, c.local, c.remote, c.encapsulate)
			p.up(t)
			p.a.answers(t, "fd00:10::1", "fd00:20::1")
			_, wrapped, straight := p.wire.seen(t)
			if (wrapped > 0) != c.encapsulate || (straight > 0) == c.encapsulate {
				t.Errorf("%d frames of ESP in UDP, %d of ESP itself", wrapped, straight)
			}
			child := p.a.child(t)
			if !child.ESN || child.Encapsulated != c.encapsulate || child.InterfaceID != interfaceID || child.PacketsIn == 0 {
				t.Errorf("CHILD_SA %+v", child)
			}
			p.a.marked(t)
			p.a.noForeignRoutes(t)
			p.nothingInClear(t)
		})
	}
}

// marked says whether the states have our interface id, and those that send our mark. One sends: where both ends began, two do
// for a moment.
func (e *end) marked(t *testing.T) {
	t.Helper()
	until(t, "one state alone sends", func() bool { return e.sending(t) == 1 })
}

// sending judges the states, and counts those that send.
func (e *end) sending(t *testing.T) (sending int) {
	t.Helper()
	h, err := netlink.NewHandleAt(e.FD(), unix.NETLINK_XFRM)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	states, err := h.XfrmStateList(netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range states {
		if s.Ifid != interfaceID || s.Reqid != int(e.conn.reqid()) {
			t.Errorf("state %x has interface id %#x and reqid %d", s.Spi, s.Ifid, s.Reqid)
		}
		if addr, _ := netip.AddrFromSlice(s.Src); addr.Unmap() != e.conn.Local {
			continue
		}
		sending++
		if s.OutputMark == nil || s.OutputMark.Value != mark || s.OutputMark.Mask != 0 { // as the library tells a full mask
			t.Errorf("state %x marks %v", s.Spi, s.OutputMark)
		}
	}
	return sending
}

// noForeignRoutes: charon installs none for policies with an interface id, though its table is there to look into.
func (e *end) noForeignRoutes(t *testing.T) {
	t.Helper()
	list, err := e.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: 220}, netlink.RT_FILTER_TABLE)
	if err != nil || len(list) != 0 {
		t.Errorf("charon's table has %v, %v", list, err)
	}
}

func TestKernelRekeyingUnderTrafficLosesNothing(t *testing.T) {
	p := newKernelPair(t, "198.18.0.1", "198.18.0.2", false)
	p.up(t)
	f := p.a.sparing(t, "10.10.0.1", "10.20.0.1")
	for i := range 4 {
		rekeying, who := p.a, p.a.conn
		if i%2 == 1 {
			rekeying, who = p.b, p.b.conn
		}
		before := p.a.child(t)
		if err := rekeying.client.RekeyChild(t.Context(), who.Tunnel, who.Peer); err != nil {
			t.Fatal(err)
		}
		p.a.alone(t, before.SPIIn)
		f.more(t, 50)
	}
	was := p.a.status(t).SAs[0].ID
	if err := p.a.client.RekeyIKE(t.Context(), "tun0", "b"); err != nil {
		t.Fatal(err)
	}
	until(t, "the IKE_SA is another", func() bool {
		sas := p.a.status(t).SAs
		return len(sas) == 1 && sas[0].ID != was && sas[0].State == "ESTABLISHED"
	})
	f.more(t, 50)
	sent, lost := f.finish(t)
	t.Logf("four CHILD_SAs and one IKE_SA rekeyed: %d of %d packets are lost", lost, sent)
	if lost != 0 {
		t.Errorf("%d of %d packets are lost", lost, sent)
	}
	p.nothingInClear(t)
}

// A new CHILD_SA that is not a rekeying has a gap: the responder sends by it before the initiator has read the answer. That
// is milliseconds, and longer in a VM; the former SA is up all the time, so nothing else is lost.
func TestKernelAChangedConnectionIsReplacedUnderTraffic(t *testing.T) {
	p := newKernelPair(t, "198.18.0.1", "198.18.0.2", false)
	p.up(t)
	f := p.a.flow(t, "10.10.0.1", "10.20.0.1")
	for _, change := range []func(*Conn){
		func(c *Conn) { c.Rekey = 2 * time.Hour },
		func(c *Conn) { c.Prefixes = prefixes("10.20.0.0/16", "10.21.0.0/16", "fd00:20::/64") },
		func(c *Conn) { c.IKEProposals = []string{"aes256gcm16-prfsha384-ecp384"} },
		func(c *Conn) { c.Encapsulate = true },
		func(c *Conn) { c.Prefixes = prefixes("10.20.0.0/16", "fd00:20::/64") },
	} {
		before := p.a.child(t)
		change(&p.a.conn)
		if p.a.conn.IKEProposals != nil {
			p.b.conn.IKEProposals = append(slices.Clone(DefaultIKEProposals), p.a.conn.IKEProposals...)
			p.b.load(t)
		}
		p.a.load(t)
		p.a.alone(t, before.SPIIn)
		f.more(t, 50)
	}
	sent, lost := f.finish(t)
	t.Logf("five changes: %d of %d packets are lost", lost, sent)
	if lost > sent/10 {
		t.Errorf("%d of %d packets are lost", lost, sent)
	}
	p.nothingInClear(t)
}

func TestKernelTrafficGoesOnWithoutCharonAndNeverInClear(t *testing.T) {
	p := newKernelPair(t, "198.18.0.1", "198.18.0.2", false)
	// Before anything is loaded, the interface has no policy and drops.
	early := p.a.flow(t, "10.10.0.1", "10.20.0.1")
	early.more(t, 20)
	if sent, lost := early.finish(t); lost != sent {
		t.Errorf("%d of %d packets crossed a tunnel that is not up", sent-lost, sent)
	}
	p.up(t)
	for _, e := range []*end{p.a, p.b} {
		f := p.a.flow(t, "10.10.0.1", "10.20.0.1")
		e.charon.kill()
		e.hears(t, CharonGone)
		f.more(t, 100)
		if sent, lost := f.count(); lost > 50 {
			t.Errorf("%d of %d packets are lost while charon is dead, whose states the kernel keeps", lost, sent)
		}
		e.charon.start()
		e.hears(t, PeerUp)
		p.a.answers(t, "10.10.0.1", "10.20.0.1")
		sent, lost := f.finish(t)
		t.Logf("charon of %s was killed and came back: %d of %d packets are lost", e.conn.LocalID, lost, sent)
	}
	// A charon that is stopped takes its states along.
	f := p.a.flow(t, "10.10.0.1", "10.20.0.1")
	p.a.charon.cmd.Process.Signal(syscall.SIGTERM)
	p.a.hears(t, CharonGone)
	f.more(t, 100)
	p.a.charon.kill()
	p.a.charon.start()
	p.a.hears(t, PeerUp)
	p.a.answers(t, "10.10.0.1", "10.20.0.1")
	f.finish(t)
	p.nothingInClear(t)
}

func TestKernelADeadPeerIsFoundAndComesBack(t *testing.T) {
	p := newKernelPair(t, "198.18.0.1", "198.18.0.2", false)
	p.up(t)
	// b hears nothing any more, and its kernel says nothing either: a peer that sends is not asked whether it lives.
	if err := p.b.charon.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.a.hears(t, PeerDown)
	if err := p.b.charon.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.a.hears(t, PeerUp)
	p.a.answers(t, "10.10.0.1", "10.20.0.1")
	p.nothingInClear(t)
}
