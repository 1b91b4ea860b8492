package ipsec

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"sluice/tests/nstest"
)

// TCP's second packet is the first that a socket sees which is opened for the first one, whenever the keeper looked between them, and
// so is the packet after any gap of its repetitions.
func TestWhoRepeatsItselfAsTCPDoesIsListenedForFromTheSecondPacketOn(t *testing.T) {
	for phase := time.Duration(1); phase <= glance; phase += 7 * time.Millisecond {
		sent := []time.Duration{0, 1, 3, 7, 15, 31}
		d, a := &Driver{}, attention{}
		listens, next, count := false, 0, uint64(0)
		for at := -phase; next < len(sent); at += glance {
			for next < len(sent) && sent[next]*time.Second <= at {
				if next > 0 && !listens {
					t.Errorf("looked %s before the first packet: nobody listens when that of %d s comes", phase, sent[next])
				}
				next, count = next+1, count+1
			}
			now := noon.Add(at)
			if look, strange := a.due(now, func() (uint64, error) { return count, nil }); look {
				listens = d.expects(now, strange)
			}
		}
	}
}

func TestListeningEndsWhereNothingStrangeComes(t *testing.T) {
	d := &Driver{}
	if d.expects(noon, false) {
		t.Error("without a reason")
	}
	if !d.expects(noon, true) || !d.expects(noon.Add(listenFor-1), false) || d.expects(noon.Add(listenFor), false) {
		t.Error("not for the time that it should")
	}
}

// listensTo is an ear for what a peer sends to us.
func listensTo(t *testing.T, peer, local string, udp bool, heard uint64) ear {
	return ear{tunnel: "fra1", peer: peer, local: netip.MustParseAddrPort(local), udp: udp, direction: mustDirection(t, masterKey(t), peer, "self"), heard: heard}
}

type finding struct {
	peer  string
	epoch uint64
}

// newListener has no driver; what it finds goes to the channel.
func newListener(t *testing.T) (*listener, chan finding) {
	out := make(chan finding, 10)
	l := &listener{
		found: func(e ear, epoch uint64) error { out <- finding{e.peer, epoch}; return nil },
		past:  func(e ear, esp []byte) bool { _, ok := former(e.direction, esp, e.heard); return ok },
		fault: func(err error) { t.Error(err) },
		now:   func() time.Time { return noon },
	}
	t.Cleanup(func() { l.close(); l.readers.Wait() })
	return l, out
}

func TestEveryPeerIsFoundByTheFirstPacketThatTheSocketSees(t *testing.T) {
	ns := nstest.Enter(t)
	ns.Address(t, "lo", "192.0.2.1/32", "2001:db8::1/128")
	now := minutes(noon)
	l, found := newListener(t)
	send := func(network, to string, packet []byte) {
		t.Helper()
		c, err := net.Dial(network, to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(packet) // that nobody has the port is no matter
	}
	ears := []ear{
		listensTo(t, "plain", "192.0.2.1:0", false, 0), listensTo(t, "six", "[2001:db8::1]:0", false, now-7),
		listensTo(t, "udp", "192.0.2.1:0", true, 0), listensTo(t, "port", "[2001:db8::1]:4511", true, 0),
	}
	networks := []string{"ip4:50", "ip6:50", "udp", "udp"}
	targets := []string{"192.0.2.1", "2001:db8::1", "192.0.2.1:4500", "[2001:db8::1]:4511"}
	await := func(peer string, epoch uint64) {
		t.Helper()
		select {
		case got := <-found:
			if want := (finding{peer, epoch}); got != want {
				t.Errorf("found %v, want %v", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s is not found", peer)
		}
	}
	// One after the other, with the same socket under changing filters; the last round has more peers than a filter compares.
	crowd := slices.Clone(ears)
	for i := range mostTags {
		e := ears[0]
		e.peer, e.direction.tag = fmt.Sprint("p", i), uint32(0x100+i)<<spiBits
		crowd = append(crowd, e)
	}
	for round, all := range [][]ear{ears, crowd} {
		for i, e := range ears {
			if err := l.tend(t.Context(), all[i:]); err != nil {
				t.Fatal(err)
			}
			epoch := now + uint64(5*round+i)
			for _, other := range ears { // not of this place, or in the other kind of packet
				if other.udp != e.udp {
					send(networks[i], targets[i], seal(t, other.direction, epoch, 1))
				}
			}
			send(networks[i], targets[i], seal(t, e.direction, epoch, 1))
			await(e.peer, epoch)
		}
	}
	if err := l.tend(t.Context(), nil); err != nil || l.socket != nil {
		t.Errorf("a socket stays for nobody: %v", err)
	}
	l.readers.Wait()
}

// packet is ESP over IPv4.
func packet(t *testing.T, to string, esp []byte) []byte {
	t.Helper()
	h := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 50, 0, 0, 192, 0, 2, 9}
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(esp)))
	return append(append(h, netip.MustParseAddr(to).AsSlice()...), esp...)
}

func TestSearchesInVainAreRareForEachPeerAndNoneIsMadeOfWhatTheKernelHas(t *testing.T) {
	l, found := newListener(t)
	at, now := noon, minutes(noon)
	l.now = func() time.Time { return at }
	a, b := listensTo(t, "a", "192.0.2.1:0", false, now), listensTo(t, "b", "192.0.2.1:0", false, now)
	l.ears, l.stood = []ear{a, b}, map[seat]bool{}
	doubts := map[string]*pause{}
	forged := func(d direction) []byte {
		esp := seal(t, d, now+9, 1)
		esp[len(esp)-1] ^= 1
		return esp
	}
	steps := []struct {
		what string
		esp  []byte
		wait time.Duration
		vain bool
		want finding
	}{
		{"of an epoch that stands", seal(t, a.direction, now+windowAhead, 1), 0, false, finding{}},
		{"the SPI of one that does, so another key is not looked for now", seal(t, a.direction, now+windowAhead+256, 1), 0, false, finding{}},
		{"forged", forged(a.direction), 0, true, finding{}},
		{"real, in the pause", seal(t, a.direction, now+9, 1), firstPause - 1, false, finding{}},
		{"another peer's", seal(t, b.direction, now+9, 1), 0, false, finding{"b", now + 9}},
		{"the pause is over: a replay", seal(t, a.direction, now-3, 1), 1, true, finding{}},
		{"the next is twice as long", seal(t, a.direction, now+9, 1), 2*firstPause - 1, false, finding{}},
		{"real", seal(t, a.direction, now+9, 1), 1, false, finding{"a", now + 9}},
		{"found is not listened for", forged(a.direction), time.Hour, false, finding{}},
	}
	for _, s := range steps {
		at = at.Add(s.wait)
		if vain := l.examine(packet(t, "192.0.2.1", s.esp), doubts); vain != s.vain {
			t.Errorf("%s: in vain %v", s.what, vain)
		}
		got := finding{}
		select {
		case got = <-found:
		default:
		}
		if got != s.want {
			t.Errorf("%s: found %v, want %v", s.what, got, s.want)
		}
	}
}

func TestAFilterTakesTheSPIsOfItsTagsAlone(t *testing.T) {
	for _, n := range []int{1, 16, 17, 100, mostTags} {
		var tags []uint32
		for i := range n {
			tags = append(tags, uint32(0xfff000-i*7)<<spiBits)
		}
		slices.Sort(tags)
		code := filter(tags)
		if len(code) > 2*n+40 {
			t.Errorf("%d instructions for %d tags", len(code), n)
		}
		vm, err := bpf.NewVM(code)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			for _, off := range []uint32{0, 1, ^uint32(0)} {
				esp := append(binary.BigEndian.AppendUint32(nil, (tags[i]>>spiBits+off)<<spiBits|0x5a), make([]byte, 40)...)
				got, err := vm.Run(packet(t, "192.0.2.1", esp))
				if err != nil || got > 0 != (off == 0) {
					t.Errorf("tag %d of %d, %+d: takes %d, %v", i, n, int32(off), got, err)
				}
			}
		}
		if got, err := vm.Run([]byte{0x45, 0, 0}); got != 0 || err != nil {
			t.Errorf("half a header: %d, %v", got, err)
		}
	}
}
