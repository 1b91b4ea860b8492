package tc

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

// replay is what Apply does to a machine in a state, as Observe would see it afterwards.
func replay(have State, op Op) State {
	out := State{Digest: have.Digest, Interfaces: slices.Clone(have.Interfaces)}
	at := func(name string) int {
		return slices.IndexFunc(out.Interfaces, func(i Interface) bool { return i.Name == name })
	}
	switch op.Kind {
	case Load:
		out.Digest = op.State.Digest
		for i := range out.Interfaces { // what the generation does not know is not of a role any more
			out.Interfaces[i].Judge = false
			w, known := find(op.State.Interfaces, out.Interfaces[i].Name)
			switch {
			case !known:
				out.Interfaces[i].Role = RoleNone
			case out.Interfaces[i].Role != RoleNone:
				out.Interfaces[i] = w
			}
		}
		for _, w := range op.State.Interfaces {
			if at(w.Name) < 0 { // its slots are there
				out.Interfaces = append(out.Interfaces, Interface{Name: w.Name})
			}
		}
	case Attach:
		out.Interfaces[at(op.Interface.Name)] = op.Interface
	case Detach:
		i := at(op.Interface.Name)
		out.Interfaces = slices.Delete(out.Interfaces, i, i+1)
		if len(out.Interfaces) == 0 {
			out.Digest = ""
		}
	}
	slices.SortFunc(out.Interfaces, func(a, b Interface) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func randomState(rng *rand.Rand, observed bool) State {
	var s State
	for i := range 5 {
		if rng.IntN(2) == 0 {
			continue
		}
		role := Role(1 + rng.IntN(int(NumRoles)-1))
		if observed && rng.IntN(4) == 0 {
			role = RoleNone
		}
		s.Interfaces = append(s.Interfaces, Interface{Name: fmt.Sprintf("eth%d", i), Role: role,
			Judge: role != RoleNone && rng.IntN(2) == 0})
	}
	if len(s.Interfaces) > 0 {
		s.Digest = []string{"a", "b", "c"}[rng.IntN(3)]
		if observed && rng.IntN(4) == 0 {
			s.Digest = ""
		}
	}
	return s
}

func TestReplayingDiffReachesWhatIsWanted(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		have, want := randomState(rng, true), randomState(rng, false)
		if ops := diff(want, want); len(ops) != 0 {
			t.Fatalf("%+v with itself: %v", want, ops)
		}
		if ops := diff(have, have); len(ops) != 0 {
			t.Fatalf("%+v with itself: %v", have, ops)
		}
		got := have
		teardown := false
		for _, op := range diff(have, want) {
			if teardown && !op.Teardown() {
				t.Fatalf("%v after a teardown", op)
			}
			teardown = op.Teardown()
			got = replay(got, op)
		}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b []Interface) bool { return slices.Equal(a, b) })); d != "" {
			t.Fatalf("from %+v by %v:\n%s", have, diff(have, want), d)
		}
	}
}

func TestAnInterfaceIsAttachedOnlyAfterItsSlotsAreFilled(t *testing.T) {
	want := State{Digest: "a", Interfaces: []Interface{{Name: "eth0", Role: RoleUplink}}}
	ops := diff(State{}, want)
	if len(ops) != 2 || ops[0].Kind != Load || ops[1].Kind != Attach {
		t.Errorf("%v", ops)
	}
}

func TestPlanLinesReadAsSentences(t *testing.T) {
	g := Generation{}
	for _, test := range []struct {
		op   Op
		want string
	}{
		{Op{Kind: Load, State: State{Digest: g.Digest(), Interfaces: make([]Interface, 2)}},
			"load tc generation " + g.Digest()[:12] + " and switch 2 interfaces to it"},
		{Op{Kind: Attach, Interface: Interface{Name: "eth0", Role: RoleUplink}}, "attach tcx on eth0 as uplink"},
		{Op{Kind: Detach, Interface: Interface{Name: "eth0"}}, "detach tcx from eth0"},
	} {
		if got := test.op.String(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

func TestDigestTellsEveryDifference(t *testing.T) {
	base := func() Generation {
		return Generation{Workloads: []Workload{{Name: "a"}}, Ingress: classify.Policy{Rules: []classify.Rule{{ID: 1}}}}
	}
	seen := map[string]string{base().Digest(): "the same"}
	if again := base(); seen[again.Digest()] == "" {
		t.Error("equal generations have different digests")
	}
	for name, change := range map[string]func(*Generation){
		"matrix":                func(g *Generation) { g.Matrix[RoleUplink][RoleTunnel] = true },
		"a workload's default":  func(g *Generation) { g.Workloads[0].Egress.Default = classify.Drop },
		"an empty list for any": func(g *Generation) { g.Ingress.Rules[0].Ports = []classify.PortRange{} },
		"slots":                 func(g *Generation) { g.FlowSlots = 7 },
	} {
		g := base()
		change(&g)
		if other, ok := seen[g.Digest()]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[g.Digest()] = name
	}
}

func TestPoliciesStandWhereTheProgramsLookForThem(t *testing.T) {
	g := Generation{
		Failsafe: classify.Policy{Name: "failsafe"}, System: classify.Policy{Name: "system"},
		Ingress: classify.Policy{Name: "ingress"}, Egress: classify.Policy{Name: "egress"},
		Workloads: []Workload{
			{Ingress: classify.Policy{Name: "a in"}, Egress: classify.Policy{Name: "a out"}},
			{Ingress: classify.Policy{Name: "b in"}, Egress: classify.Policy{Name: "b out"}},
		},
	}
	var names []string
	for _, p := range g.Policies() {
		names = append(names, p.Name)
	}
	want := []string{"failsafe", "system", "ingress", "egress", "a in", "a out", "b in", "b out"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
}

func TestWhatConcernsAMissingInterfaceIsLeftOut(t *testing.T) {
	both := func(names ...string) State {
		s := State{Digest: "d"}
		for _, n := range names {
			s.Interfaces = append(s.Interfaces, Interface{Name: n, Role: RoleDownstream})
			s.Generation.OnLink = append(s.Generation.OnLink, OnLink{Interface: n})
			s.Generation.Paced = append(s.Generation.Paced, Paced{Interface: n})
		}
		return s
	}
	want := both("lan0", "lan1")
	if d := cmp.Diff(both("lan1"), want.among(&links{missing: map[string]bool{"lan0": true}}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(both("lan0", "lan1"), want, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("it was changed itself:\n%s", d)
	}
}
