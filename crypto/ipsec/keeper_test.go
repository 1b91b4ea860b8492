package ipsec

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
)

func TestPacketsThatNobodyStandsReadyForAreExpectedWhereTheKernelDoesNotCount(t *testing.T) {
	missing := &fs.PathError{Op: "open", Path: "xfrm_stat", Err: fs.ErrNotExist}
	steps := []struct {
		what          string
		after         time.Duration // since the step before
		n             uint64
		err           error
		look, strange bool
		blind         bool
	}{
		{"the first look", 0, 5, nil, true, true, false},
		{"nothing new", glance, 5, nil, false, false, false},
		{"a packet", glance, 6, nil, true, true, false},
		{"its time", inspection, 6, nil, true, false, false},
		{"a read that failed", glance, 0, errors.New("too many open files"), false, false, false},
		{"the same as before", glance, 6, nil, false, false, false},
		{"a kernel that does not count", glance, 0, missing, false, false, true},
		{"and its time", inspection, 0, missing, true, true, true},
		{"not yet again", glance, 0, missing, false, false, true},
		{"again", inspection, 0, missing, true, true, true},
	}
	var a attention
	now := noon
	for _, s := range steps {
		now = now.Add(s.after)
		look, strange := a.due(now, func() (uint64, error) { return s.n, s.err })
		if look != s.look || strange != s.strange || a.blind != s.blind {
			t.Errorf("%s: look %v, strange %v, blind %v", s.what, look, strange, a.blind)
		}
	}
}

// A replay of the epoch before finds no state once what was under way has come.
func TestTheStateOfTheEpochBeforeStaysForAMomentAndIsNeverMade(t *testing.T) {
	n := newNode(t)
	w := wanted("fra1", "b")
	w.Local, w.Peers[0].Endpoint = netip.MustParseAddrPort("192.0.2.1:0"), netip.MustParseAddrPort("198.51.100.1:0")
	x := n.register(w)
	p := x.peers["b"]
	p.directions = &directions{mustDirection(t, masterKey(t), "self", "b"), mustDirection(t, masterKey(t), "b", "self")}
	p.Heard, p.standing = 77, true
	stand := func(epochs ...uint64) {
		n.seen.states = map[owner][]sa{}
		for _, e := range epochs {
			s := x.receiving(p, e)
			if e == 78 {
				s.packets = 1
			}
			n.seen.states[owner{x.ifID, p.reqid}] = append(n.seen.states[owner{x.ifID, p.reqid}], s)
		}
	}
	judge := func(what string, missing []uint64, surplus ...uint64) {
		t.Helper()
		st := n.take(x, p)
		var spis []uint64
		for _, s := range st.surplus {
			e, _ := latest(s.spi, p.Heard+windowAhead)
			spis = append(spis, e)
		}
		if diff := cmp.Diff([][]uint64{missing, surplus}, [][]uint64{st.missing, spis}); diff != "" {
			t.Errorf("%s: missing, surplus (-want +have):\n%s", what, diff)
		}
	}
	stand(77, 78, 79)
	judge("at rest", nil)
	n.hear(x, p)
	if p.Heard != 78 || !x.dirty {
		t.Fatalf("heard %d", p.Heard)
	}
	judge("its successor was heard", []uint64{80})
	n.now = n.now.Add(linger - time.Millisecond)
	stand(77, 78, 79, 80)
	judge("a moment later", nil)
	n.now = n.now.Add(time.Millisecond)
	judge("then", nil, 77)
	stand(78, 79, 80)
	judge("gone", nil)
	n.now = n.now.Add(-time.Hour)
	stand(77, 78, 79, 80)
	judge("the clock was set back", nil, 77)

	if err := n.save(); err != nil {
		t.Fatal(err)
	}
	n.restart()
	n.seen.states = map[owner][]sa{}
	again := n.tunnels["fra1"]
	again.peers["b"].directions = p.directions
	x, p = again, again.peers["b"]
	stand()
	judge("after a boot", []uint64{78, 79, 80})
	stand(77, 78, 79, 80)
	judge("another process, which does not know since when", nil)
	n.now = n.now.Add(linger)
	judge("which waits as well", nil, 77)
}

// A plan writes the tunnel by one step and the peer by the next, and the keeper may look between them.
func TestAPeerWhoseNewEndpointIsNotWrittenYetIsLeftToItsStep(t *testing.T) {
	n, x, p := mover(t)
	n.xfrm = &xfrm{ns: netns.NsHandle(1 << 20)} // nothing reaches a kernel
	w := x.want
	w.Local, w.Peers = netip.MustParseAddrPort("198.18.0.1:4511"), []Peer{x.want.Peers[0]}
	w.Peers[0].Endpoint = movedTo
	n.register(w)
	keeps := func(what string, want bool) {
		t.Helper()
		before := p.used
		err := n.keep(x)
		if kept := err != nil; kept != want || kept != (p.used > before) {
			t.Errorf("%s: error %v, epoch %d after %d", what, err, p.used, before)
		}
	}
	keeps("between the steps", false)
	n.now = n.now.Add(stepAfter - time.Second)
	keeps("its step takes long", false)
	n.now = n.now.Add(time.Second)
	keeps("its step has failed", true)
	n.now = n.now.Add(-time.Hour)
	keeps("the clock was set back", true)
	p.want = w.Peers[0]
	keeps("its step was done", true)
	w.Peers = []Peer{w.Peers[0]}
	w.Peers[0].Endpoint = other
	n.register(w)
	keeps("between the steps of the next plan", false)
	w.Peers = nil
	n.register(w)
	keeps("another plan removes it", true)
}
