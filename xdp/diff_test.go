package xdp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/xdp/classify"
)

// observed is what Observe can return: no auto, and a digest only where something is attached.
func observed(rng *rand.Rand) State {
	s := State{Digest: []string{"", "aa", "bb"}[rng.IntN(3)]}
	attached := false
	for i := range 5 {
		if rng.IntN(2) == 0 {
			continue
		}
		mode := []Mode{Native, Generic, ""}[rng.IntN(3)]
		attached = attached || mode != ""
		s.Interfaces = append(s.Interfaces, Interface{Name: fmt.Sprintf("eth%d", i), Mode: mode, FailOpen: mode != "" && rng.IntN(2) == 0})
	}
	if !attached {
		s.Digest = ""
	}
	return s
}

// wanted is what compile makes.
func wanted(rng *rand.Rand) State {
	s := observed(rng)
	s.Digest = []string{"aa", "bb", "cc"}[rng.IntN(3)]
	s.Generation.FlowSlots = uint32(rng.IntN(10))
	for i := range s.Interfaces {
		s.Interfaces[i].Mode = []Mode{Auto, Native, Generic}[rng.IntN(3)]
		s.Interfaces[i].FailOpen = rng.IntN(2) == 0
	}
	return s
}

// replay does to a state what Apply does to the machine.
func replay(t *testing.T, have State, ops []Op) State {
	t.Helper()
	filled := map[string]string{} // what is in each slot
	have.Interfaces = slices.Clone(have.Interfaces)
	for _, i := range have.Interfaces {
		filled[i.Name] = have.Digest
	}
	for _, op := range ops {
		at := slices.IndexFunc(have.Interfaces, func(i Interface) bool { return i.Name == op.Interface.Name })
		switch op.Kind {
		case Load:
			for _, i := range op.State.Interfaces {
				filled[i.Name] = op.State.Digest
			}
		case SetFail:
			have.Interfaces[at].FailOpen = op.Interface.FailOpen
		case Attach:
			if filled[op.Interface.Name] == "" {
				t.Fatalf("%s is attached with an empty slot: %v", op.Interface.Name, ops)
			}
			attached := op.Interface
			if attached.Mode == Auto {
				attached.Mode = Generic
			}
			if at >= 0 {
				have.Interfaces[at] = attached
			} else {
				have.Interfaces = append(have.Interfaces, attached)
			}
		case Detach:
			have.Interfaces = slices.Delete(have.Interfaces, at, at+1)
		}
	}
	slices.SortFunc(have.Interfaces, func(a, b Interface) int { return strings.Compare(a.Name, b.Name) })
	have.Digest = ""
	for n, i := range have.Interfaces {
		if n > 0 && filled[i.Name] != have.Digest {
			have.Digest = ""
			break
		}
		have.Digest = filled[i.Name]
	}
	return have
}

func TestDiffOfEqualStatesIsEmpty(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		for _, s := range []State{observed(rng), wanted(rng)} {
			if ops := diff(s, s); len(ops) != 0 {
				t.Fatalf("%+v: %v", s, ops)
			}
		}
	}
}

func TestReplayingDiffOnAGivesB(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 10_000 {
		a, b := observed(rng), wanted(rng)
		ops := diff(a, b)
		got := replay(t, a, ops)
		if left := diff(got, b); len(left) != 0 {
			t.Fatalf("from %+v to %+v:\n%v\ngives %+v, and leaves %v", a, b, ops, got, left)
		}
		names := func(s State) (names []string) {
			for _, i := range s.Interfaces {
				names = append(names, i.Name)
			}
			return names
		}
		if d := cmp.Diff(names(b), names(got)); d != "" {
			t.Fatal(d)
		}
	}
}

func TestDiffTakesAwayLast(t *testing.T) {
	a := State{Digest: "aa", Interfaces: []Interface{{Name: "eth0", Mode: Native}, {Name: "eth1", Mode: Generic}, {Name: "eth2", Mode: Native}}}
	b := State{Digest: "bb", Interfaces: []Interface{{Name: "eth1", Mode: Native}, {Name: "eth2", Mode: Auto, FailOpen: true}, {Name: "eth3", Mode: Auto}}}
	var got []string
	for _, op := range diff(a, b) {
		got = append(got, op.String())
		if op.Teardown() != (op.Kind == Detach) {
			t.Errorf("%s: Teardown is %v", op, op.Teardown())
		}
	}
	want := []string{
		"load XDP generation bb and switch 3 interfaces to it",
		"set xdp.fail of eth2 to open",
		"re-attach XDP on eth1 in mode native (was generic): packets pass unjudged for some milliseconds",
		"attach XDP on eth3 in mode auto",
		"detach XDP from eth0",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDigestTellsGenerationsApart(t *testing.T) {
	base := func() Generation {
		return Generation{FlowSlots: 1, Ingress: classify.Policy{Default: classify.Drop, Rules: []classify.Rule{{ID: 1, Name: "a"}}}}
	}
	changes := map[string]func(*Generation){
		"flow slots":    func(g *Generation) { g.FlowSlots = 2 },
		"own addresses": func(g *Generation) { g.Self = []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
		"default":       func(g *Generation) { g.Ingress.Default = classify.Accept },
		"an empty set":  func(g *Generation) { g.Ingress.Rules[0].From = []netip.Prefix{} },
		"a prefix":      func(g *Generation) { g.Ingress.Rules[0].To = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} },
		"shadow":        func(g *Generation) { g.Ingress.Rules[0].Shadow = true },
		"id":            func(g *Generation) { g.Ingress.Rules[0].ID = 2 },
		"other policy":  func(g *Generation) { g.System, g.Ingress = g.Ingress, g.System },
	}
	seen := map[string]string{base().Digest(): "nothing changed"}
	if again := base().Digest(); len(again) != 32 || seen[again] == "" {
		t.Error("the digest is not 32 stable digits")
	}
	for what, change := range changes {
		g := base()
		change(&g)
		if before, ok := seen[g.Digest()]; ok {
			t.Errorf("%q has the digest of %q", what, before)
		}
		seen[g.Digest()] = what
	}
}
