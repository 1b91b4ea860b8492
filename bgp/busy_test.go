package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"

	"sluice/bgp/bfd"
	"sluice/bgp/fib"
	"sluice/tests/nstest"
)

// gate is what GoBGP runs in the goroutine that answers, after each answer: while it is shut, nobody has one, as while a table is taken away.
type gate struct {
	mu    sync.RWMutex
	waits chan struct{} // signalled by who finds it shut
}

func (g *gate) Observe(server.FSMOperation, time.Duration, time.Duration) {
	if !g.mu.TryRLock() {
		signal(g.waits)
		g.mu.RLock()
	}
	g.mu.RUnlock()
}

// shut makes GoBGP busy until the caller opens it, or until the test ends.
func (g *gate) shut(t *testing.T, sp *speaker) (open func()) {
	t.Helper()
	g.mu.Lock()
	open = sync.OnceFunc(g.mu.Unlock)
	t.Cleanup(open)
	go func() { _, _ = sp.states(t.Context()) }() // the last one that may have an answer
	nstest.Eventually(t, 20*time.Second, func() string {
		select {
		case <-g.waits:
			return ""
		default:
			return "GoBGP answers everybody"
		}
	})
	return open
}

// spoken is what GoBGP logs.
type spoken struct {
	mu   sync.Mutex
	said []string
	stop string        // who says this stands still
	goOn chan struct{} // until this is closed
}

// stops makes who says a text stand still until the caller lets it go on, or until the test ends.
func (s *spoken) stops(t *testing.T, text string) (goOn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop, s.goOn = text, make(chan struct{})
	goOn = sync.OnceFunc(func() { close(s.goOn) })
	t.Cleanup(goOn)
	return goOn
}

func (s *spoken) Enabled(context.Context, slog.Level) bool { return true }
func (s *spoken) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s *spoken) WithGroup(string) slog.Handler            { return s }

func (s *spoken) Handle(_ context.Context, r slog.Record) error {
	s.mu.Lock()
	s.said = append(s.said, r.Message)
	stop, goOn := s.stop, s.goOn
	s.mu.Unlock()
	if stop == r.Message {
		<-goOn
	}
	return nil
}

func (s *spoken) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.said, text)
}

// reported is a BFD whose sessions the test makes.
type reported struct {
	BFD
	sessions []bfd.Status
	asked    func() // nil: nobody minds
}

func (r *reported) Set([]bfd.Config) error { return nil }

func (r *reported) Report() (bfd.Report, error) {
	if r.asked != nil {
		r.asked()
	}
	return bfd.Report{Sessions: r.sessions}, nil
}

// held is a subsystem with neighbors on links of their own, each with a session and a route 10.0.N.0/24, whose GoBGP knows them and nothing else.
type held struct {
	*Subsystem
	sp   *speaker
	gate *gate
	log  *spoken
	bfd  *reported
	ns   *nstest.NS
}

func neighborAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i), 1}) }

func hold(t *testing.T, neighbors int) held {
	t.Helper()
	h := held{gate: &gate{waits: make(chan struct{}, 1)}, log: &spoken{}, bfd: &reported{}, ns: nstest.New(t)}
	h.Subsystem = New(slog.New(slog.DiscardHandler), Options{BFD: h.bfd})
	h.detected.known = true
	h.sp = &speaker{sweep: newSweeper(func() {}, func() bool { return false }), cancel: func() {}, ways: newWays(), passwords: map[netip.Addr]string{}}
	h.sp.bgp = server.NewBgpServer(server.LoggerOption(slog.New(h.log), nil), server.TimingHookOption(h.gate))
	go h.sp.bgp.Serve()
	t.Cleanup(h.sp.bgp.Stop)
	t.Cleanup(h.sp.sweep.stop)
	err := h.sp.bgp.StartBgp(t.Context(), &api.StartBgpRequest{Global: &api.Global{Asn: 65010, RouterId: "198.18.0.2", ListenPort: -1}})
	if err == nil {
		h.sp.fib, err = fib.Open(h.Subsystem.log, h.ns.FD(), nil, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.sp.fib.Close)
	h.sp.fib.SetPolicy(fib.Policy{Accept: []fib.Match{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), GE: 8, LE: 32}}})
	h.runs(h.sp)
	h.have.ASN, h.have.RouterID, h.have.Port = 65010, netip.MustParseAddr("198.18.0.2"), 179
	far := nstest.New(t)
	for i := range neighbors {
		nstest.Veth(t, h.ns, fmt.Sprintf("up%d", i), far, fmt.Sprintf("gw%d", i))
		h.ns.Address(t, fmt.Sprintf("up%d", i), fmt.Sprintf("198.18.%d.2/24", i))
		n := Neighbor{Name: fmt.Sprintf("tor-%d", i), Address: neighborAddr(i), ASN: 65001, IPv4: true, Passive: true, FallOver: true}
		if err := h.sp.bgp.AddPeer(t.Context(), &api.AddPeerRequest{Peer: n.peer("", false)}); err != nil {
			t.Fatal(err)
		}
		h.have.Neighbors = append(h.have.Neighbors, n)
		h.sessions.add(n)
		h.sessions.began(n.Address)
		h.sp.fib.Update(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24), fib.Source{Neighbor: n.Address}, n.Address)
	}
	return h
}

// installs waits until the kernel has the routes of these neighbors.
func (h held) installs(t *testing.T, neighbors ...int) {
	t.Helper()
	nstest.Eventually(t, 10*time.Second, func() string {
		var got []int
		for _, r := range h.sp.fib.Routes(fib.Query{}).Routes {
			if !r.Absent && len(r.NextHops) > 0 {
				got = append(got, int(r.Prefix.Addr().As4()[2]))
			}
		}
		return nstest.Want("routes", got, neighbors)
	})
}

func (h held) fails(i int, independent bool) {
	h.bfd.sessions = append(h.bfd.sessions, bfd.Status{Peer: neighborAddr(i), State: bfd.Down, Failures: 1, Independent: independent})
}

// GoBGP is asked for nothing before the routes of all that failed are moved. Neighbors that restart keep theirs, unless BFD says that it is not for that.
func TestADeadNeighborsRoutesGoWhileGoBGPIsBusy(t *testing.T) {
	h := hold(t, 6)
	h.installs(t, 0, 1, 2, 3, 4, 5)
	h.gate.shut(t, h.sp)
	h.sessions.broke(neighborAddr(2), true)
	h.sessions.broke(neighborAddr(3), true)
	h.sessions.broke(neighborAddr(4), false) // GoBGP is about to take its routes away
	for i := range 5 {
		h.fails(i, i == 3)
	}
	if err := h.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.installs(t, 2, 5)
	h.sp.fib.Dead(neighborAddr(0), false) // it is back
	if err := h.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.installs(t, 0, 2, 5) // what was told is not told again
}

// While somebody changes something, and waits for GoBGP with it, everything that is shown is shown, and lost links are heeded.
func TestABusyGoBGPHoldsUpNobodyWhoOnlyLooks(t *testing.T) {
	h := hold(t, 2)
	h.installs(t, 0, 1)
	h.sessions.runsOver(neighborAddr(1), 7)
	open := h.gate.shut(t, h.sp)
	n := h.have.Neighbors[0]
	outcome, applied := h.begins(t, func() error { return h.Apply(context.Background(), Op{kind: removeNeighbor, neighbor: n}) }), make(chan struct{})
	go func() {
		defer close(applied)
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	}()
	defer func() { open(); <-applied }()
	looked := make(chan error, 1)
	go func() {
		_, status := h.Status(t.Context())
		if errors.Is(status, errBusy) {
			status = nil
		}
		_, _, table := h.NeighborTable("tor-1", Received, 1)
		if errors.Is(table, errBusy) {
			table = nil
		}
		h.Routes(RouteQuery{})
		h.FIB()
		h.NextHops()
		_, observed := h.Observe(t.Context())
		_, discards := h.Discards()
		h.links.lost(7)
		h.fallOver(t.Context())
		looked <- errors.Join(status, table, observed, discards, h.look(t.Context()))
	}()
	select {
	case err := <-looked:
		if err != nil {
			t.Error(err)
		}
	case <-applied:
		t.Fatal("the change did not wait")
	case <-time.After(20 * time.Second):
		t.Fatal("somebody waits for GoBGP")
	}
	open()
	nstest.Eventually(t, 10*time.Second, func() string {
		return nstest.Want("the session over the lost link is ended", h.log.has("Send operation notification"), true)
	})
}

// Who holds the sessions of BFD is another process: while it stands still, what does not need it is shown.
func TestABFDProcessThatStandsStillHoldsUpNothingElse(t *testing.T) {
	h := hold(t, 1)
	h.installs(t, 0)
	h.have.BFD = []bfd.Config{{Peer: neighborAddr(0)}}
	asked := 0
	h.bfd.asked = func() {
		asked++
		if !h.mu.TryLock() {
			t.Error("everybody waits for the process of BFD")
			return
		}
		h.mu.Unlock()
	}
	_, discards := h.Discards()
	_, status := h.Status(t.Context())
	if errors.Is(status, errBusy) {
		status = nil
	}
	h.detected.known = false
	if err := errors.Join(discards, status, h.detect(h.have.BFD), h.look(t.Context())); err != nil {
		t.Fatal(err)
	}
	if asked != 4 {
		t.Errorf("it was asked %d times, want once by each of four", asked)
	}
}

// What could not be ended is ended the next time, and next hops that went with it are back.
func TestASessionThatCouldNotBeEndedIsEndedAgain(t *testing.T) {
	h := hold(t, 1)
	addr := neighborAddr(0)
	for _, dead := range []bool{false, true} {
		session := h.sessions.ends(addr, false)
		if again := h.sessions.ends(addr, dead); session != 1 || again != 0 {
			t.Errorf("session %d is to be ended, then %d", session, again)
		}
		if back := h.sessions.stays(addr, session); back != dead {
			t.Errorf("next hops that are dead for a session that stays: %t, want %t", back, dead)
		}
	}
	h.installs(t, 0)
	if err := h.sp.bgp.DeletePeer(t.Context(), &api.DeletePeerRequest{Address: addr.String()}); err != nil { // and none can be ended
		t.Fatal(err)
	}
	h.sp.fib.Dead(addr, true)
	h.installs(t)
	h.end(t.Context(), h.sp, addr, "link down", true)
	h.installs(t, 0)
}

func TestALimitIsTakenBackFromASessionThatIsUp(t *testing.T) {
	h := hold(t, 2)
	for i := range 2 {
		h.limit(h.sp, neighborAddr(i), true)
	}
	h.sessions.broke(neighborAddr(1), false)
	if got := h.sessions.bounded(); len(got) != 1 || got[0] != neighborAddr(0) {
		t.Errorf("limits are to be taken back from %v", got)
	}
	h.limit(h.sp, neighborAddr(0), false)
	h.sessions.began(neighborAddr(1)) // by itself: the peer is the same
	if got := h.sessions.bounded(); len(got) != 1 || got[0] != neighborAddr(1) {
		t.Errorf("limits are to be taken back from %v", got)
	}
}

func TestASessionIsEndedOnceAndNoLaterOne(t *testing.T) {
	h := hold(t, 2)
	addr := neighborAddr(0)
	if first, again := h.sessions.ends(addr, false), h.sessions.ends(addr, false); first != 1 || again != 0 {
		t.Errorf("session %d is to be ended, then %d", first, again)
	}
	h.sessions.broke(addr, false)
	if down := h.sessions.ends(addr, false); down != 0 {
		t.Errorf("of a session that is down %d is to be ended", down)
	}
	h.sessions.began(addr)
	if err := h.cut(t.Context(), h.sp, addr, 1, "link down"); err != nil || h.log.has("Send operation notification") {
		t.Errorf("the session before was to end, and GoBGP was asked to end this one (%v)", err)
	}
	if next := h.sessions.ends(addr, false); next != 2 {
		t.Errorf("session %d is to be ended, want the second", next)
	}
	if err := h.cut(t.Context(), h.sp, addr, 2, "link down"); err != nil || !h.log.has("Send operation notification") {
		t.Errorf("GoBGP was not asked to end the session (%v)", err)
	}
}

func TestACensusIsTakenWhereSomethingChangedAndWaitedForAWhile(t *testing.T) {
	h := hold(t, 1)
	ask := func() map[string]*api.Peer { // nil: a busy machine did not answer in time
		t.Helper()
		peers, err := h.sp.peers(t.Context(), nil)
		if err != nil && !errors.Is(err, errBusy) {
			t.Fatal(err)
		}
		return peers
	}
	same := func(a, b map[string]*api.Peer) bool {
		return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
	}
	var first map[string]*api.Peer
	nstest.Eventually(t, 20*time.Second, func() string { // a peer starts as idle
		first = ask()
		h.sp.census.mu.Lock()
		h.sp.census.until = time.Now().Add(time.Hour)
		h.sp.census.mu.Unlock()
		return nstest.Want("a young census is not taken again", []bool{len(first) == 1, same(ask(), first)}, []bool{true, true})
	})
	another := Neighbor{Address: netip.MustParseAddr("198.18.9.1"), ASN: 65001, IPv4: true, Passive: true}
	if err := h.sp.bgp.AddPeer(t.Context(), &api.AddPeerRequest{Peer: another.peer("", false)}); err != nil {
		t.Fatal(err)
	}
	var second map[string]*api.Peer
	nstest.Eventually(t, 20*time.Second, func() string { // until then the answer is what was last known
		second = ask()
		return nstest.Want("neighbors", len(second), 2)
	})
	open := h.gate.shut(t, h.sp)
	if !same(ask(), second) {
		t.Error("a busy GoBGP is not answered for by what was last known")
	}
	fresh := &speaker{bgp: h.sp.bgp}
	if _, err := fresh.peers(t.Context(), nil); !errors.Is(err, errBusy) {
		t.Errorf("of a busy GoBGP nothing is known, and the answer is %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := h.sp.states(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits no longer has %v", err)
	}
	open()
	nstest.Eventually(t, 10*time.Second, func() string {
		peers, err := fresh.peers(t.Context(), nil)
		return nstest.Want("neighbors", fmt.Sprint(len(peers), err), "2 <nil>")
	})
}

func TestARestIsShortAfterAStall(t *testing.T) {
	if got := restAfter(time.Second); got != censusRest*time.Second {
		t.Errorf("after a second GoBGP is left alone for %v", got)
	}
	if got := restAfter(217 * time.Second); got > 10*time.Second {
		t.Errorf("after a stall of 217 s GoBGP is left alone for %v", got)
	}
}
