package compile

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/config"
	"sluice/xdp/classify"
)

// draft is a file in the making, line by line, and the machine that it is for.
type draft struct {
	rng     *rand.Rand
	rules   []string
	sets    map[string][]string
	feed    []netip.Prefix
	links   []string
	address string // of the workload
	next    int
}

func (d *draft) rule() string {
	d.next++
	pick := func(of ...string) string { return of[d.rng.IntN(len(of))] }
	out := fmt.Sprintf("name: r%d, from: [%s]", d.next, pick("a", "b", "fed", "self", "w", "10.0.0.0/8", "a, 192.0.2.1"))
	if d.rng.IntN(2) == 0 {
		out += ", not_to: [" + pick("a", "self", "w", "198.51.100.0/24, b") + "]"
	}
	out += pick("", ", protocol: tcp, ports: [80, 443]", ", protocol: udp", ", interfaces: [eth0]", ", interfaces: [eth1]")
	return out + pick(", action: accept", ", action: drop", ", action: drop, mode: shadow", ", action: limit, limit: {rate: 10kpps, burst: 1kp}")
}

func (d *draft) text() string {
	return "interfaces: [{name: eth0, role: uplink}, {name: eth1, role: uplink}]\n" +
		"management: {accept: [{name: m, from: [10.9.0.0/16], protocol: tcp, ports: [22]}]}\n" +
		"workloads: [{name: w, interface: w, addresses: [" + d.address + "], egress: {rules: [{name: we, to: [b], action: drop}]}}]\n" +
		"sets: [{name: a, prefixes: [" + strings.Join(d.sets["a"], ", ") + "]}, {name: b, prefixes: [" + strings.Join(d.sets["b"], ", ") +
		"]}, {name: fed, files: [/feed], watch: true}]\n" +
		"policy: {ingress: {default: drop, rules: [{" + strings.Join(d.rules, "}, {") + "}]}}\n"
}

func (d *draft) change() string {
	at := d.rng.IntN(len(d.rules))
	switch d.rng.IntN(9) {
	case 0:
		d.rules = slices.Insert(d.rules, at, d.rule())
		return "a rule more"
	case 1:
		if len(d.rules) > 3 {
			d.rules = slices.Delete(d.rules, at, at+1)
		}
		return "a rule less"
	case 2:
		d.rules[at] = d.rule()
		return "another rule"
	case 3:
		to := d.rng.IntN(len(d.rules))
		d.rules[at], d.rules[to] = d.rules[to], d.rules[at]
		return "another order"
	case 4:
		name := []string{"a", "b"}[d.rng.IntN(2)]
		d.sets[name] = append(d.sets[name], fmt.Sprintf("192.0.2.%d", d.rng.IntN(256)))
		return "set " + name
	case 5:
		d.feed = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(d.rng.IntN(256))}), 32)}
		return "the feed"
	case 6:
		d.links[0] = fmt.Sprintf("eth0 198.18.0.%d/24", d.rng.IntN(256))
		return "an address"
	case 7:
		slices.Reverse(d.links[1:])
		return "indexes of interfaces"
	}
	d.address = fmt.Sprintf("10.0.1.%d", d.rng.IntN(256))
	return "the workload's address"
}

// TestACacheNeverChangesTheOutcome compares with compilations that have none, but for the tables, which classify compares.
func TestACacheNeverChangesTheOutcome(t *testing.T) {
	butTables := cmp.FilterValues(func(a, b *classify.Tables) bool { return true }, cmp.Ignore())
	for seed := range uint64(3) {
		d := &draft{rng: rand.New(rand.NewPCG(seed, 51)), sets: map[string][]string{"a": {"192.0.2.0/25"}, "b": {"198.51.100.0/24", "2001:db8::/32"}},
			links: []string{"eth0 198.18.0.2/24", "eth1", "w"}, address: "10.0.1.1"}
		for range 12 {
			d.rules = append(d.rules, d.rule())
		}
		var cache Cache
		var rt Runtime
		what := "the first"
		for step := range 40 {
			cfg, f := parse(t, d.text()), facts(d.links...)
			rt.Watched = map[string][]netip.Prefix{"/feed": d.feed}
			got, err := cache.Compile(cfg, rt, f)
			if err != nil {
				t.Fatalf("seed %d, step %d, %s: %v", seed, step, what, err)
			}
			if diff := cmp.Diff(compile(t, cfg, rt, f), got, cmp.Options{cmpEquate, butTables}); diff != "" {
				t.Fatalf("seed %d, step %d, %s: another outcome than without a cache:\n%s", seed, step, what, diff)
			}
			if step%7 != 3 { // else it was only looked at
				rt.RuleIDs = got.RuleIDs
			}
			what = d.change()
		}
	}
}

// TestEveryFieldButThePlaceMakesARuleAnother: what sameRule does not compare would be resolved as it was.
func TestEveryFieldButThePlaceMakesARuleAnother(t *testing.T) {
	for i := range reflect.TypeFor[config.Rule]().NumField() {
		var a, b config.Rule
		field := reflect.ValueOf(&b).Elem().Field(i)
		switch field.Kind() {
		case reflect.String:
			field.SetString("x")
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Int:
			field.SetInt(7)
		case reflect.Uint8, reflect.Uint32:
			field.SetUint(7)
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		case reflect.Pointer:
			field.Set(reflect.New(field.Type().Elem()))
		case reflect.Struct:
			first := field.Field(0)
			if first.Kind() == reflect.String {
				first.SetString("x")
			} else {
				first.SetUint(1)
			}
		default:
			t.Fatalf("a field of kind %s: say here how it changes", field.Kind())
		}
		name := reflect.TypeFor[config.Rule]().Field(i).Name
		if same := sameRule(&a, &b); same != (name == "Pos") {
			t.Errorf("rules that differ in %s are the same: %v", name, same)
		}
	}
	limit := func(rate uint64) *config.Rule { return &config.Rule{Limit: &config.Limit{Rate: rate}} }
	if !sameRule(limit(1), limit(1)) || sameRule(limit(1), limit(2)) {
		t.Error("limits are not compared by what they say")
	}
}

func TestSortedPrefixesAreThoseOfSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 52))
	for range 500 {
		var list []netip.Prefix
		for range 1 + rng.IntN(14) { // ascending runs, some of them short, with doubles
			run := make([]netip.Prefix, rng.IntN(20))
			for i := range run {
				run[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(256))}), 30+rng.IntN(3))
			}
			slices.SortFunc(run, comparePrefixes)
			list = append(list, slices.Compact(run)...)
		}
		before, want := slices.Clone(list), slices.Clone(list)
		slices.SortFunc(want, comparePrefixes)
		want = slices.Compact(want)
		if got := sortedPrefixes(list); !slices.Equal(got, want) || got == nil {
			t.Fatalf("of %v came %v", list, got)
		}
		if !slices.Equal(list, before) {
			t.Fatal("the list was changed")
		}
	}
}
