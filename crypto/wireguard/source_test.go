package wireguard

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// senders are the addresses that encrypted packets came from since the last call, sorted.
func (p *pair) senders(t *testing.T) []string {
	t.Helper()
	p.fence(t)
	c := p.wire
	c.mu.Lock()
	defer c.mu.Unlock()
	out := slices.Sorted(maps.Keys(c.from))
	clear(c.from)
	return out
}

// rests forgets the senders of what was sent until now. A fence does not pass the devices, where some of it may still be.
func (p *pair) rests(t *testing.T) {
	t.Helper()
	quiet := 0
	until(t, "nothing is sent any more", func() bool {
		if quiet++; len(p.senders(t)) > 0 {
			quiet = 0
		}
		return quiet == 2
	})
}

// sender is where a frame of UDP to WireGuard's port comes from, and is not valid of other frames.
func sender(frame []byte) (from netip.Addr) {
	const ethernet, v4, v6 = 14, 20, 40 // bytes; IPv4 without options, IPv6 without extension headers
	to := 0
	switch {
	case len(frame) >= ethernet+v4+8 && frame[12] == 0x08 && frame[13] == 0 && frame[14] == 0x45 && frame[23] == unix.IPPROTO_UDP:
		from, to = netip.AddrFrom4([4]byte(frame[26:30])), ethernet+v4
	case len(frame) >= ethernet+v6+8 && frame[12] == 0x86 && frame[13] == 0xdd && frame[20] == unix.IPPROTO_UDP:
		from, to = netip.AddrFrom16([16]byte(frame[22:38])), ethernet+v6
	}
	if to == 0 || binary.BigEndian.Uint16(frame[to+2:]) != port {
		return netip.Addr{}
	}
	return from
}

// Under load the kernel gathers datagrams, and each answer must still come from the address that was spoken to: a peer
// behind a firewall hears no other.
func TestEveryAnswerComesFromTheAddressThatWasSpokenTo(t *testing.T) {
	p := newPair(t)
	p.b.Address(t, "up1", "198.18.0.22/24", "2001:db8::22/64")
	p.up(t)
	for _, c := range []struct{ own, to string }{{"198.18.0.1", "198.18.0.22"}, {"2001:db8::1", "2001:db8::22"}, {"198.18.0.1", "198.18.0.2"}} {
		p.wantA.Tunnels[0].Peers[0].Endpoint = netip.AddrPortFrom(netip.MustParseAddr(c.to), port)
		p.endA.converge(p.wantA)
		p.a.answers(t, "10.20.0.1", marker) // b has learned of it
		p.rests(t)
		streams(t, p.a.dial(t, "tcp", "10.20.0.1"), 8<<20)
		want := []string{c.own, c.to}
		if got := p.senders(t); !slices.Equal(got, want) {
			t.Errorf("spoken to is %s: packets come from %v, want %v", c.to, got, want)
		}
		p.wire.Complete(t)
	}
}

func TestWhatIsSentFirstComesFromTheLocalAddress(t *testing.T) {
	p := newPair(t)
	p.b.Address(t, "up1", "198.18.0.22/24")
	p.wantA.Tunnels[0].Peers[0].Endpoint, p.wantA.Tunnels[0].Peers[0].Keepalive = netip.AddrPort{}, 0
	b := &p.wantB.Tunnels[0]
	b.Local, b.Peers[0].Endpoint = netip.MustParseAddr("198.18.0.22"), netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), port)
	p.endA, p.endB = startEnd(t, p.a), startEnd(t, p.b)
	p.endA.converge(p.wantA)
	p.a.serveEcho(t, "10.200.0.0")
	p.endB.converge(p.wantB)
	if ops := p.endB.converge(p.wantB); len(ops) != 0 {
		t.Errorf("a second apply does %v", ops)
	}
	p.b.answers(t, "10.200.0.0", marker)
	if got, want := p.senders(t), []string{"198.18.0.1", "198.18.0.22"}; !slices.Equal(got, want) {
		t.Errorf("packets come from %v, want %v", got, want)
	}
	if got := p.endA.status().Peers[0].Endpoint; got != "198.18.0.22:51820" {
		t.Errorf("a has learned %s", got)
	}
	p.rests(t)
	// a still speaks to an address that is gone, until b has spoken from the one that it has.
	addr, err := netlink.ParseAddr("198.18.0.22/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.b.AddrDel(p.b.link(t, "up1"), addr); err != nil {
		t.Fatal(err)
	}
	p.b.answers(t, "10.200.0.0", marker)
	if got, want := p.senders(t), []string{"198.18.0.1", "198.18.0.2"}; !slices.Equal(got, want) {
		t.Errorf("once it is gone packets come from %v, want %v", got, want)
	}
	b.Local = netip.Addr{}
	if ops := p.endB.converge(p.wantB); !slices.Equal(ops, []string{"set tunnel fra1: local address as routed"}) {
		t.Errorf("%v", ops)
	}
}

// TestAnotherLocalAddressIsUsedAtOnce, also where the one before stays an address of the machine, and a peer with a session speaks to it.
func TestAnotherLocalAddressIsUsedAtOnce(t *testing.T) {
	p := newPair(t)
	p.b.Address(t, "up1", "198.18.0.22/24")
	b := &p.wantB.Tunnels[0]
	b.Local, b.Peers[0].Endpoint = netip.MustParseAddr("198.18.0.2"), netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), port)
	p.up(t)
	for _, local := range []string{"198.18.0.22", "198.18.0.2", "198.18.0.22"} {
		b.Local = netip.MustParseAddr(local)
		p.endB.converge(p.wantB)
		until(t, "a has learned "+local, func() bool { return p.endA.at(local + ":51820") })
		p.a.answers(t, "10.20.0.1", marker)
		p.rests(t)
		p.a.answers(t, "10.20.0.1", marker)
		if got := p.senders(t); !slices.Equal(got, []string{"198.18.0.1", local}) {
			t.Errorf("packets come from %v, want %s", got, local)
		}
	}
}
