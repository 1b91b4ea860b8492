package compile

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"sluice/xdp/abi"
)

// rules writes an ingress policy of drop rules with these names.
func rules(names ...string) string {
	var items []string
	for _, n := range names {
		items = append(items, "{name: "+n+", action: drop}")
	}
	return uplink + "policy: {ingress: {rules: [" + strings.Join(items, ", ") + "]}}"
}

// ofRules leaves out the ids of defaults.
func ofRules(ids map[string]uint32) map[string]uint32 {
	out := maps.Clone(ids)
	maps.DeleteFunc(out, func(key string, _ uint32) bool { return strings.HasSuffix(key, "#default") })
	return out
}

func TestRuleIDs(t *testing.T) {
	before := map[string]uint32{"ingress/a": 1, "ingress/b": 2, "ingress/c": 3}
	for _, c := range []struct {
		name  string
		rt    Runtime
		rules []string
		want  map[string]uint32
	}{
		{"begin at 1, in the order of the file", Runtime{}, []string{"a", "b", "c"}, before},
		{"do not follow a new order", Runtime{RuleIDs: before}, []string{"c", "a", "b"}, before},
		{"are not moved by a removal", Runtime{RuleIDs: before}, []string{"a", "c"}, map[string]uint32{"ingress/a": 1, "ingress/c": 3}},
		{"are not moved by a rule in front; the new one gets a fresh id", Runtime{RuleIDs: before}, []string{"new", "a", "b", "c"},
			map[string]uint32{"ingress/new": 4, "ingress/a": 1, "ingress/b": 2, "ingress/c": 3}},
		{"of a renamed rule are fresh, and the old one is not given out in the same go", Runtime{RuleIDs: before}, []string{"a", "b2", "c"},
			map[string]uint32{"ingress/a": 1, "ingress/b2": 4, "ingress/c": 3}},
		{"come back with their rule while they are retired",
			Runtime{RuleIDs: before, Retired: map[uint32]bool{2: true}}, []string{"a", "b"}, map[string]uint32{"ingress/a": 1, "ingress/b": 2}},
		{"come back by their claim", Runtime{RuleIDs: map[string]uint32{"ingress/a": 1}, Retired: map[uint32]bool{2: true},
			Claims: map[string]uint32{"ingress/b": 2}}, []string{"c", "a", "b"}, map[string]uint32{"ingress/a": 1, "ingress/b": 2, "ingress/c": 3}},
		{"that are retired go to nobody else",
			Runtime{RuleIDs: map[string]uint32{"ingress/a": 1}, Retired: map[uint32]bool{2: true, 3: true}}, []string{"a", "x", "z"},
			map[string]uint32{"ingress/a": 1, "ingress/x": 4, "ingress/z": 5}},
		{"that are released are used again",
			Runtime{RuleIDs: map[string]uint32{"ingress/a": 3}, Retired: map[uint32]bool{1: false}}, []string{"x", "a", "z"},
			map[string]uint32{"ingress/x": 1, "ingress/a": 3, "ingress/z": 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := compile(t, parse(t, rules(c.rules...)), c.rt, eth0)
			if ids := ofRules(d.RuleIDs); !maps.Equal(ids, c.want) {
				t.Errorf("ids %v, want %v", ids, c.want)
			}
			for i, r := range d.TC.Generation.Ingress.Rules {
				if r.Name != c.rules[i] || r.ID != c.want["ingress/"+r.Name] {
					t.Errorf("rule %d of the policy is %s with id %d", i, r.Name, r.ID)
				}
			}
		})
	}
}

func TestRulesOfOneNameInTwoPoliciesHaveTwoIDs(t *testing.T) {
	d := compile(t, parse(t, uplink+`
policy: {ingress: {rules: [{name: r, action: drop}]}, egress: {rules: [{name: r, action: drop}]}}
management: {accept: [{name: r, protocol: any}]}
workloads: [{name: w, interface: w, addresses: [10.0.1.1], ingress: {rules: [{name: r, action: drop}]}, egress: {rules: [{name: r, action: drop}]}}]
`), Runtime{}, facts("eth0", "w"))
	want := map[string]uint32{"failsafe/r": 1, "ingress/r": 2, "egress/r": 3, "workload/w/ingress/r": 4, "workload/w/egress/r": 5}
	if ids := ofRules(d.RuleIDs); !maps.Equal(ids, want) {
		t.Errorf("ids %v, want %v", ids, want)
	}
}

// TestDefaultsHaveIDsBehindAllRules: they are counted as well, and keep their ids as rules do.
func TestDefaultsHaveIDsBehindAllRules(t *testing.T) {
	cfg := parse(t, uplink+`
policy: {ingress: {default: drop, rules: [{name: default, action: accept}]}}
management: {accept: [{name: r, protocol: any}]}
workloads: [{name: w, interface: w, addresses: [10.0.1.1]}]
`)
	d := compile(t, cfg, Runtime{RuleIDs: map[string]uint32{"egress#default": 1000}}, facts("eth0", "w"))
	want := map[string]uint32{"failsafe/r": 1, "ingress/default": 2, "ingress#default": 3, "egress#default": 1000,
		"workload/w/ingress#default": 4, "workload/w/egress#default": 5}
	if !maps.Equal(d.RuleIDs, want) {
		t.Errorf("ids %v, want %v", d.RuleIDs, want)
	}
	g := d.TC.Generation
	got := map[string]uint32{"ingress#default": g.Ingress.DefaultID, "egress#default": g.Egress.DefaultID,
		"workload/w/ingress#default": g.Workloads[0].Ingress.DefaultID, "workload/w/egress#default": g.Workloads[0].Egress.DefaultID}
	for key, id := range got {
		if id != want[key] {
			t.Errorf("%s counts as %d, want %d", key, id, want[key])
		}
	}
	if g.Failsafe.DefaultID != 0 || g.System.DefaultID != 0 || d.XDP.Generation.Ingress.DefaultID != 3 {
		t.Errorf("failsafe %d, system %d, XDP's ingress %d", g.Failsafe.DefaultID, g.System.DefaultID, d.XDP.Generation.Ingress.DefaultID)
	}
	if g.RuleSlots != 1024 || d.XDP.Generation.RuleSlots != 1024 {
		t.Errorf("room for %d and %d ids, want 1024", g.RuleSlots, d.XDP.Generation.RuleSlots)
	}
}

// TestADefaultGoesWithoutAnID where rules took the last one: it is not counted, and nothing is refused.
func TestADefaultGoesWithoutAnID(t *testing.T) {
	rt := Runtime{Retired: map[uint32]bool{}}
	for id := range uint32(abi.RuleIDs) {
		rt.Retired[id] = id != 7 && id != 9
	}
	d := compile(t, parse(t, rules("a")), rt, eth0)
	if g := d.TC.Generation; d.RuleIDs["ingress/a"] != 7 || g.Ingress.DefaultID != 9 || g.Egress.DefaultID != 0 {
		t.Errorf("ids %v, ingress counts as %d, egress as %d", d.RuleIDs, g.Ingress.DefaultID, g.Egress.DefaultID)
	}
}

// TestRulesOfAWorkloadThatIsAwayKeepTheirIDs: a container that restarts counts on.
func TestRulesOfAWorkloadThatIsAwayKeepTheirIDs(t *testing.T) {
	cfg := parse(t, uplink+"workloads: [{name: w, interface: w, addresses: [10.0.1.1], egress: {rules: [{name: r, action: drop}]}}]")
	there := compile(t, cfg, Runtime{}, facts("eth0", "w"))
	away := compile(t, cfg, Runtime{RuleIDs: there.RuleIDs}, eth0)
	if id := away.RuleIDs["workload/w/egress/r"]; id != 1 {
		t.Errorf("id %d while the workload is away, want 1", id)
	}
	if n := len(away.TC.Generation.Workloads); n != 0 {
		t.Errorf("%d workloads compiled, none is there", n)
	}
}

func TestWhenNoIDIsLeftTheRuleIsNamed(t *testing.T) {
	rt := Runtime{Retired: map[uint32]bool{}}
	for id := range uint32(abi.RuleIDs) {
		rt.Retired[id] = true
	}
	delete(rt.Retired, 7) // one is left
	_, err := Compile(parse(t, rules("a", "b")), rt, eth0)
	// classify's own safety net must not say the same again in other words.
	want := "edge.yaml:2:53: policy.ingress.rules[1]: no rule id is left; remove rules, or wait until the counters of removed ones are released"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestManyRulesHaveDistinctIDs(t *testing.T) {
	var names []string
	for i := range 2000 {
		names = append(names, fmt.Sprintf("r%d", i))
	}
	seen := map[uint32]string{}
	d := compile(t, parse(t, rules(names...)), Runtime{RuleIDs: map[string]uint32{"ingress/r7": 3, "ingress/gone": 1000}}, eth0)
	for name, id := range d.RuleIDs {
		if other, taken := seen[id]; taken || id == 0 {
			t.Fatalf("%s and %s have id %d", name, other, id)
		}
		seen[id] = name
	}
	if len(ofRules(d.RuleIDs)) != 2000 || d.RuleIDs["ingress/r7"] != 3 || seen[1000] != "" {
		t.Errorf("%d ids; r7 has %d, 1000 is %q's", len(d.RuleIDs), d.RuleIDs["ingress/r7"], seen[1000])
	}
}
