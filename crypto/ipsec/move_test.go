package ipsec

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
)

var (
	wantedAt = netip.MustParseAddrPort("198.18.0.2:4500")
	movedTo  = netip.MustParseAddrPort("198.18.0.3:4501")
	other    = netip.MustParseAddrPort("198.18.0.4:4502")
)

// mover is a node with a peer in UDP that is sent to, without a kernel.
func mover(t *testing.T) (*node, *tunnel, *peer) {
	t.Helper()
	n := newNode(t)
	w := wanted("fra1", "b")
	w.Encapsulation, w.Local, w.Peers[0].Endpoint = UDP, netip.MustParseAddrPort("198.18.0.1:0"), wantedAt
	x := n.register(w)
	p := x.peers["b"]
	p.directions = &directions{mustDirection(t, masterKey(t), "self", "b"), mustDirection(t, masterKey(t), "b", "self")}
	p.standing = true
	n.seen = kernel{map[owner][]sa{}, map[selector]policy{}}
	n.placed = map[selector]policy{}
	n.sends(x, p)
	return n, x, p
}

// sends begins the next epoch to where the peer is.
func (n *node) sends(x *tunnel, p *peer) {
	n.t.Helper()
	s := x.sending(p)
	s.spi = p.directions.send.spi(n.send("fra1", "b"))
	n.seen.states[owner{x.ifID, p.reqid}] = []sa{s}
	p.since = n.now
}

func TestAPeerThatFlapsUsesEpochsNoFasterThanTheClock(t *testing.T) {
	n, x, p := mover(t)
	n.now = n.now.Add(30 * time.Minute)
	moves, began := 0, n.now
	for ; n.now.Sub(began) < 2*time.Hour; n.now = n.now.Add(500 * time.Millisecond) {
		p.Waits = []netip.AddrPort{movedTo, other}[moves%2]
		if !n.ready(p) {
			continue
		}
		if moves == 0 && n.now != began {
			t.Error("the first move waits")
		}
		p.At, p.moved = p.Waits, n.now
		n.sends(x, p)
		if moves++; p.used > minutes(n.now)+1 {
			t.Fatalf("epoch %d at %s, where the clock gives %d", p.used, n.now, minutes(n.now))
		}
	}
	if moves < 145 || moves > 152 {
		t.Errorf("%d moves in two hours, after half an hour without one", moves)
	}
}

func TestAPeerWhoseEpochsAreAheadOfTheClockMovesEveryTwoMinutes(t *testing.T) {
	n, x, p := mover(t)
	for range 5 {
		n.sends(x, p)
	}
	p.Waits = movedTo
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {spell - time.Second, false}, {spell, true}} {
		n.now = p.since.Add(c.after)
		if got := n.ready(p); got != c.want {
			t.Errorf("%s after the last: %v", c.after, got)
		}
	}
	n.now = p.since
	for _, from := range []netip.AddrPort{movedTo, other} { // it waits for the last, and no kernel is asked
		if err := n.move(mapping{local: x.want.Local.Addr(), reqid: p.reqid, spi: p.directions.receive.spi(1), from: from}); err != nil || p.Waits != from {
			t.Errorf("%v, waits for %s", err, p.Waits)
		}
	}
	p.since, n.now = time.Time{}, noon // a process that has not looked yet
	if n.ready(p) {
		t.Error("a restart gives an epoch")
	}
}

func TestARestartForgetsNeitherWhereAPeerIsNorWhereItWaitsToBe(t *testing.T) {
	for name, c := range map[string]struct {
		endpoint  netip.AddrPort // in the file meanwhile
		at, waits netip.AddrPort
	}{
		"the same file": {wantedAt, movedTo, other},
		"another file":  {netip.MustParseAddrPort("198.18.0.9:4500"), netip.AddrPort{}, netip.AddrPort{}},
	} {
		n, x, p := mover(t)
		p.At, p.From, p.Waits, p.Again = movedTo, wantedAt, other, 77
		x.want.Peers[0].Endpoint, x.dirty = c.endpoint, true
		if err := n.save(); err != nil {
			t.Fatal(err)
		}
		n.restart()
		got := n.tunnels["fra1"].peers["b"]
		if got.At != c.at || got.Waits != c.waits || got.Again != 77 {
			t.Errorf("%s: %+v", name, got.place)
		}
	}
}

func TestAnotherEndpointOfTheFileWaitsForItsEpochAsAMoveDoes(t *testing.T) {
	n, x, p := mover(t)
	n.aim(x, p, movedTo)
	p.want.Endpoint = movedTo
	if p.endpoint() != movedTo || p.Waits.IsValid() {
		t.Fatalf("the first one waits: %+v", p.place)
	}
	n.sends(x, p)
	n.aim(x, p, other)
	p.want.Endpoint = other
	if want := (place{At: movedTo, From: other, Waits: other}); p.place != want {
		t.Errorf("%+v, want %+v", p.place, want)
	}
	if s := n.peerStatus(x, p); s.Endpoint != movedTo.String() || s.Waits != other.String() || !s.Moved {
		t.Errorf("status %+v", s)
	}
	// What still comes from the place before does not cancel the file's wish.
	m := mapping{local: x.want.Local.Addr(), reqid: p.reqid, spi: p.directions.receive.spi(1), from: movedTo}
	if err := n.move(m); err != nil || p.Waits != other {
		t.Errorf("%v, waits for %s", err, p.Waits)
	}
	p.Waits = wantedAt
	if err := n.move(m); err != nil || p.Waits.IsValid() {
		t.Errorf("a peer that is back still waits to go: %v, %s", err, p.Waits)
	}
}

func TestAReplayAfterABootMovesNobodyWhileThePeerSpeaks(t *testing.T) {
	n, x, p := mover(t)
	p.Heard, p.Again = 77, 77
	s := x.receiving(p, 77)
	hear := func(what string, epoch, seq uint64, from netip.AddrPort, want bool) {
		t.Helper()
		s.spi, s.seq = p.directions.receive.spi(epoch), seq
		n.seen.states[owner{x.ifID, p.reqid}] = []sa{s}
		if got := n.believes(x, p, mapping{local: s.dst, spi: s.spi, reqid: p.reqid, from: from}); got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	hear("a first packet", 77, 100, movedTo, false)
	hear("one that is not beyond it", 77, 100, movedTo, false)
	hear("the peer itself, beyond all", 77, 500, other, false)
	hear("an older one again", 77, 500, movedTo, false)
	hear("the peer goes on", 77, 501, other, true)
	for spi, want := range map[uint32]bool{p.directions.receive.spi(77): true, p.directions.receive.spi(78): false} {
		if p.replayable(spi) != want {
			t.Errorf("a packet of SPI %#x may be a replay: %v", spi, !want)
		}
	}
}

func TestAPeerThatCannotBeMovedStaysWithItsPolicies(t *testing.T) {
	n, x, p := mover(t)
	n.xfrm = &xfrm{ns: netns.NsHandle(1 << 20)} // nothing reaches a kernel
	before := p.used
	n.now = n.now.Add(time.Hour)
	p.Waits = movedTo
	if err := n.moveOn(x, p); err == nil || !strings.Contains(err.Error(), "peer b of fra1") {
		t.Errorf("error %v", err)
	}
	if p.endpoint() != wantedAt || p.Waits != movedTo || p.live != before || len(n.placed) != 0 || !x.dirty {
		t.Errorf("sent to %s in epoch %d, waits for %s", p.endpoint(), p.live, p.Waits)
	}
	if n.ready(p) {
		t.Error("it is tried again at once")
	}
}

func TestAClockThatIsYearsAheadIsNotBelieved(t *testing.T) {
	last := built.Add(horizon)
	if got, err := firstEpoch(last, 0); err != nil || got != furthest {
		t.Errorf("%d, %v", got, err)
	}
	_, err := firstEpoch(last.Add(time.Minute), 0)
	if !errors.Is(err, ErrClock) || !strings.Contains(err.Error(), "it says 2031-") || !strings.Contains(err.Error(), "more than 5 years after") {
		t.Errorf("error %v", err)
	}
	d := mustDirection(t, masterKey(t), "b", "a")
	if got, ok := search(d, seal(t, d, furthest, 9), 0, noon); !ok || got != furthest {
		t.Errorf("the last epoch that a clock can give is not found: %d, %v", got, ok)
	}
	// Who has a past counts on by one, as where the clock is not set.
	n, _, p := mover(t)
	used := p.used
	n.now = noon.AddDate(20, 0, 0)
	n.boot()
	n.register(wanted("fra1", "b"))
	if got := n.send("fra1", "b"); got != used+1 {
		t.Errorf("epoch %d after %d", got, used)
	}
}

func TestAnEpochOfAWrongClockStaysWithItsPeer(t *testing.T) {
	n, x, p := mover(t)
	p.Sent, p.used, x.dirty = furthest+9000000, furthest+9000000, true
	if err := n.save(); err != nil {
		t.Fatal(err)
	}
	n.boot()
	n.register(wanted("ams1", "c"))
	if got := n.send("ams1", "c"); got != minutes(noon) {
		t.Errorf("another tunnel begins in %d", got)
	}
	n.register(wanted("fra1", "b"))
	if got := n.send("fra1", "b"); got != furthest+9000001 {
		t.Errorf("the peer goes on in %d", got)
	}
}

func TestWhereAPeerIsSentIsInItsFileByTheseNames(t *testing.T) {
	n, x, p := mover(t)
	p.place, x.dirty = place{At: movedTo, From: wantedAt, Waits: other, Again: 5}, true
	if err := n.save(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(n.dir, "ipsec", "fra1.json"))
	const want = `"at":"198.18.0.3:4501","from":"198.18.0.2:4500","waits":"198.18.0.4:4502","again":5`
	if err != nil || !strings.Contains(string(data), want) {
		t.Errorf("%v, %s", err, cmp.Diff(want, string(data)))
	}
}
