package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"

	"sluice/bgp/fib"
	"sluice/bgp/flowspec"
	"sluice/tests/nstest"
)

// begins starts something that changes GoBGP, and returns once it waits for it.
func (h held) begins(t *testing.T, do func() error) (outcome chan error) {
	t.Helper()
	outcome = make(chan error, 1)
	go func() { outcome <- do() }()
	nstest.Eventually(t, 20*time.Second, func() string {
		if h.change.TryLock() {
			h.change.Unlock()
			return "the change does not wait"
		}
		return ""
	})
	return outcome
}

// holds compares what the subsystem says that it holds with what GoBGP has: neighbors, and those that are shut down.
func (h held) holds(t *testing.T, want string) {
	t.Helper()
	have, err := h.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for _, n := range have.Neighbors {
		said += fmt.Sprintf("%s %t ", n.Address, n.Shutdown)
		if n.Doubtful {
			t.Errorf("%s is in doubt", n.Name)
		}
	}
	states, err := h.sp.states(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	is := ""
	for i := range 10 {
		if state, there := states[neighborAddr(i)]; there {
			is += fmt.Sprintf("%s %t ", neighborAddr(i), state.admin == api.PeerState_ADMIN_STATE_DOWN)
		}
	}
	if said != want || is != want {
		t.Errorf("it says that it holds %q, and GoBGP has %q, want %q", said, is, want)
	}
}

// A step that GoBGP is too busy for is not given up: it would be done later, and nobody would know.
func TestAStepWaitsForABusyGoBGPAndItsOutcomeIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		op   func(Neighbor) Op
		want string
	}{
		"shut down": {func(n Neighbor) Op { n.Shutdown = true; return Op{kind: relaxNeighbor, neighbor: n} }, "198.18.0.1 true "},
		"add, shut down": {func(n Neighbor) Op {
			n.Name, n.Address, n.Shutdown = "tor-1", neighborAddr(1), true
			return Op{kind: setNeighbor, neighbor: n}
		}, "198.18.0.1 false 198.18.1.1 true "},
		"make anew": {func(n Neighbor) Op { n.HoldTime = 12 * time.Second; return Op{kind: setNeighbor, neighbor: n} }, "198.18.0.1 false "},
		"remove":    {func(n Neighbor) Op { return Op{kind: removeNeighbor, neighbor: n} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := hold(t, 1)
			op := c.op(h.have.Neighbors[0])
			over, end := context.WithCancel(t.Context())
			end() // who asked has no time left
			open := h.gate.shut(t, h.sp)
			outcome := h.begins(t, func() error { return h.Apply(over, op) })
			open()
			if err := <-outcome; err != nil {
				t.Errorf("%s: %v", op, err)
			}
			h.holds(t, c.want)
		})
	}
}

// What GoBGP did not take, and takes later, leaves a neighbor that nobody wants: it is made anew, or removed.
func TestANeighborInDoubtIsMadeAnewOrRemoved(t *testing.T) {
	h := hold(t, 1)
	n, addr := h.have.Neighbors[0], neighborAddr(0)
	goOn := h.log.stops(t, "admin state changed") // the peer's own goroutine
	if err := h.sp.bgp.DisablePeer(t.Context(), &api.DisablePeerRequest{Address: addr.String()}); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, 10*time.Second, func() string {
		return nstest.Want("it is on the way down", h.log.has("admin state changed"), true)
	})
	h.sessions.exceeded(addr, func() {}) // so that to clear it is to enable it
	if err := h.Clear(t.Context(), n.Name, false); err == nil || !strings.Contains(err.Error(), "the session does not take its new state") {
		t.Fatalf("clear: %v", err)
	}
	have, err := h.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := have
	want.Neighbors = []Neighbor{n}
	again := Diff(have, want)
	want.Neighbors = nil
	if steps := fmt.Sprint(again, Diff(have, want)); steps != "[reset neighbor tor-0 (198.18.0.1 as 65001)] [remove neighbor tor-0 (198.18.0.1)]" {
		t.Fatalf("steps %s", steps)
	}
	goOn()
	if err := h.Apply(t.Context(), again[0]); err != nil {
		t.Fatal(err)
	}
	h.holds(t, "198.18.0.1 false ")
}

// A new neighbor that does not become what it should is not left behind.
func TestANeighborThatCouldNotBeAddedIsNotThere(t *testing.T) {
	h := hold(t, 0)
	n := Neighbor{Name: "tor-0", Address: neighborAddr(0), ASN: 65001, IPv4: true, Passive: true, Shutdown: true}
	goOn := h.log.stops(t, "IdleHoldTimer expired") // before it is asked whether it is to be up
	var err error
	nstest.Eventually(t, time.Minute, func() string { // a busy machine may have it shut down before the timer
		if err = h.Apply(t.Context(), Op{kind: setNeighbor, neighbor: n}); err == nil {
			err = h.Apply(t.Context(), Op{kind: removeNeighbor, neighbor: n})
			return fmt.Sprint("it could be added, removed ", err)
		}
		return ""
	})
	if !strings.Contains(err.Error(), "the session does not take its new state") {
		t.Error(err)
	}
	h.holds(t, "")
	goOn()
	if err := h.Apply(t.Context(), Op{kind: setNeighbor, neighbor: n}); err != nil {
		t.Fatal(err)
	}
	h.holds(t, "198.18.0.1 true ")
}

// Policies that GoBGP refuses leave the ones of before, in the kernel as well.
func TestFiltersThatAreRefusedChangeNothing(t *testing.T) {
	h := hold(t, 1)
	all := Learn{Accept: []Filter{{}}}
	if err := h.Apply(t.Context(), Op{kind: learn, learn: all}); err != nil {
		t.Fatal(err)
	}
	h.installs(t, 0)
	if err := h.Apply(t.Context(), Op{kind: learn, learn: Learn{Accept: []Filter{{ASPath: "("}}, Reject: []Filter{{}}, Metric: 77}}); err == nil {
		t.Fatal("GoBGP took a regular expression that is none")
	}
	h.sp.fib.Update(netip.MustParsePrefix("10.0.9.0/24"), fib.Source{Neighbor: neighborAddr(0)}, neighborAddr(0))
	h.installs(t, 0, 9)
	for _, r := range h.sp.fib.Routes(fib.Query{}).Routes {
		if r.Metric == 77 {
			t.Errorf("%s has metric %d", r.Prefix, r.Metric)
		}
	}
}

// A process that is to end does not wait for a step that waits for GoBGP: to its neighbors it looks like a restart either way.
func TestTheEndOfAProcessDoesNotWaitForABusyGoBGP(t *testing.T) {
	h := hold(t, 1)
	h.options.BFD = nil
	open := h.gate.shut(t, h.sp)
	outcome := h.begins(t, func() error {
		return h.Apply(context.Background(), Op{kind: removeNeighbor, neighbor: h.have.Neighbors[0]})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ended with %v", err)
	}
	open()
	if err := <-outcome; err != nil {
		t.Error(err)
	}
}

// GoBGP's own end has no bound.
func TestASpeakerThatDoesNotEndIsLeft(t *testing.T) {
	h := hold(t, 1)
	h.gate.shut(t, h.sp)
	if err := h.sp.cease(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "GoBGP has not stopped within 50ms") {
		t.Errorf("it ended with %v", err)
	}
}

// A rule is worth what the unicast routes say, for which GoBGP is asked. Who only looks sees what was judged last.
func TestFiltersAreShownWhileGoBGPIsBusy(t *testing.T) {
	h := hold(t, 0)
	h.filter(FlowSpec{MaxRules: 10, Keep: time.Hour})
	from := netip.MustParseAddr("198.18.0.1")
	announce := func(prefix string) {
		t.Helper()
		rule := flowspec.Rule{Family: flowspec.IPv4, Components: []flowspec.Component{{Type: flowspec.Destination, Prefix: netip.MustParsePrefix(prefix)}}}
		components, err := rule.MarshalComponents()
		if err != nil {
			t.Fatal(err)
		}
		h.flows.change(t.Context(), func(tables tables) {
			h.flows.take(tables.rules, flowspec.Announcement{Family: flowspec.IPv4, Components: components, Origin: flowspec.Origin{Neighbor: from, Originator: from}}, false)
		})
	}
	announce("203.0.113.0/24")
	rib := unicastRIB{h.sp.bgp}
	h.flows.judge(rib, time.Now())
	open := h.gate.shut(t, h.sp)
	announce("192.0.2.0/24")
	judged := make(chan struct{})
	go func() { h.flows.judge(rib, time.Now()); close(judged) }()
	nstest.Eventually(t, 20*time.Second, func() string {
		if h.flows.mu.TryLock() {
			h.flows.mu.Unlock()
			return "nobody judges"
		}
		return ""
	})
	shows := func(want int) {
		t.Helper()
		if rules, _ := h.FlowSpec(); len(rules) != want || len(h.KeepFlowSpec().Rules) != want {
			t.Errorf("%d rules are shown, and %d kept, want %d", len(rules), len(h.KeepFlowSpec().Rules), want)
		}
	}
	looked := make(chan struct{})
	go func() { shows(1); close(looked) }()
	select {
	case <-looked:
	case <-time.After(20 * time.Second):
		t.Fatal("who looks waits for GoBGP")
	}
	open()
	<-judged
	shows(2)
}

// The neighbor would be gone, and not come again.
func TestANeighborIsNotMadeAnewWithoutItsPassword(t *testing.T) {
	h := hold(t, 1)
	n := &h.have.Neighbors[0]
	n.PasswordFile = filepath.Join(t.TempDir(), "key")
	h.sessions.broke(n.Address, true)
	h.dismiss(t.Context(), h.sp, n.Address)
	other := *n
	other.HoldTime = 12 * time.Second
	if err := h.Apply(t.Context(), Op{kind: setNeighbor, neighbor: other}); err == nil || !strings.Contains(err.Error(), n.PasswordFile) {
		t.Errorf("apply: %v", err)
	}
	h.holds(t, "198.18.0.1 false ")
	const gone = "Delete a peer configuration"
	if h.have.Neighbors[0].HoldTime != 0 || h.log.has(gone) {
		t.Errorf("the neighbor was touched: %+v", h.have.Neighbors[0])
	}
	if err := os.WriteFile(n.PasswordFile, []byte("tell nobody"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.dismiss(t.Context(), h.sp, n.Address)
	h.holds(t, "198.18.0.1 false ")
	if !h.log.has(gone) {
		t.Error("what is kept for a neighbor that restarts goes with the neighbor alone")
	}
}

// DeletePath without a path takes all local ones.
func TestAWithdrawalTakesOnePrefixOrNone(t *testing.T) {
	h := hold(t, 0)
	one, two, none := netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:100::/48"), netip.MustParsePrefix("192.0.2.0/24")
	announced := func(want ...netip.Prefix) {
		t.Helper()
		entries, _, err := h.sp.list(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL}, everyPath, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []netip.Prefix
		for _, e := range entries {
			got = append(got, e.Prefix)
		}
		if !slices.Equal(got, want) {
			t.Errorf("GoBGP has %v, want %v", got, want)
		}
	}
	for _, step := range []struct {
		op   Op
		want []netip.Prefix
	}{
		{Op{kind: originate, prefix: one, paths: []Path{{Prefix: one}}}, []netip.Prefix{one}},
		{Op{kind: originate, prefix: two, paths: []Path{{Prefix: two}}}, []netip.Prefix{one, two}},
		{Op{kind: withdraw, prefix: none}, []netip.Prefix{one, two}},
		{Op{kind: withdraw, prefix: one}, []netip.Prefix{two}},
		{Op{kind: withdraw, prefix: one}, []netip.Prefix{two}},
		{Op{kind: withdraw, prefix: two}, nil},
	} {
		if err := h.Apply(t.Context(), step.op); err != nil {
			t.Errorf("%s: %v", step.op, err)
		}
		announced(step.want...)
	}
}
