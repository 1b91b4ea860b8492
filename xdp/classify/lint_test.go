package classify_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

func named(name string) func(*classify.Rule) { return func(r *classify.Rule) { r.Name = name } }

func TestLintFindsRulesWithoutEffect(t *testing.T) {
	const repeats = "rule one before it matches the same packets: it is never reached"
	const covered = "rule one before it matches all that it could: it is never reached"
	const both = "rules a and b before it match all that it could together: it is never reached"
	const byDefault = "the default does the same, and no rule behind it differs: without it no verdict changes"
	const byAnother = "rule b behind it does the same, and none in between differs: without it no verdict changes"
	accepting := func(p *classify.Policy) { p.Default = classify.Accept }
	cases := []struct {
		name   string
		rules  []classify.Rule // the one with id 99 is judged, or the last
		want   string
		policy func(*classify.Policy)
	}{
		{"an empty set", []classify.Rule{rule(from())}, "from is an empty set: it never matches", nil},
		{"an empty destination", []classify.Rule{rule(to())}, "to is an empty set: it never matches", nil},
		{"no port", []classify.Rule{rule(ports())}, "ports is empty: it never matches", nil},
		{"two families", []classify.Rule{rule(from("10.0.0.0/8"), to("fd00::/8"))},
			"from and to have no address family in common: it never matches", nil},

		{"a repetition", []classify.Rule{rule(from("10.0.0.0/8")), rule(from("10.0.0.0/9", "10.0.0.0/8"))}, repeats, nil},
		{"nil is everywhere", []classify.Rule{rule(from("0.0.0.0/0", "::/0")), rule()}, repeats, nil},
		{"a shorter prefix before", []classify.Rule{rule(from("10.0.0.0/8")), rule(from("10.1.0.0/16"), protocol(6))}, covered, nil},
		{"more ports before", []classify.Rule{rule(ports(80, 90)), rule(ports(80, 80, 85, 90))}, covered, nil},
		{"any port before", []classify.Rule{rule(), rule(ports(80, 80))}, covered, nil},
		{"a covered shadow rule", []classify.Rule{rule(), rule(shadow)}, repeats, nil},
		{"only one family before", []classify.Rule{rule(from("0.0.0.0/0")), rule()}, "", nil},
		{"a longer prefix before", []classify.Rule{rule(drop, from("10.1.0.0/16")), rule(from("10.0.0.0/8"))}, "", nil},
		{"ports before any", []classify.Rule{rule(ports(0, 65535)), rule()}, "", nil},
		{"a shadow rule before", []classify.Rule{rule(shadow), rule()}, "", nil},
		{"an exclusion before", []classify.Rule{rule(notFrom("10.0.0.1/32")), rule()}, "", nil},
		{"the same exclusion", []classify.Rule{rule(notFrom("10.0.0.1/32")), rule(notFrom("10.0.0.0/8"))}, covered, nil},
		{"another protocol before", []classify.Rule{rule(protocol(6)), rule(protocol(17))}, "", nil},
		{"a TTL before", []classify.Rule{rule(drop, ttl(255)), rule()}, "", nil},
		{"the same TTL before", []classify.Rule{rule(drop, ttl(255)), rule(ttl(255))}, repeats, nil},
		{"another TTL before", []classify.Rule{rule(drop, ttl(255)), rule(ttl(254))}, "", nil},
		{"no ICMP type", []classify.Rule{rule(types())}, "icmp_types is empty: it never matches", nil},
		{"no VLAN", []classify.Rule{rule(vlan())}, "vlan is empty: it never matches", nil},
		{"no length", []classify.Rule{rule(length())}, "length is empty: it never matches", nil},
		{"an interface that is not there", []classify.Rule{rule(interfaces(0))}, "none of its interfaces is there: it never matches", nil},
		{"fewer flags before", []classify.Rule{rule(flags(syn, 0)), rule(flags(syn, ack))}, covered, nil},
		{"more flags before", []classify.Rule{rule(flags(syn, ack)), rule(flags(syn, 0))}, "", nil},
		{"the other flag before", []classify.Rule{rule(flags(0, syn)), rule(flags(syn, 0))}, "", nil},
		{"more types before", []classify.Rule{rule(types(3, 8)), rule(types(needed))}, covered, nil},
		{"one code before", []classify.Rule{rule(types(needed)), rule(types(3))}, "", nil},
		{"all fragments before", []classify.Rule{rule(fragment(classify.FragmentYes)), rule(fragment(classify.FragmentLater))}, covered, nil},
		{"whole packets before", []classify.Rule{rule(fragment(classify.FragmentNo)), rule()}, "", nil},
		{"more VLANs before", []classify.Rule{rule(vlan(0, 100)), rule(vlan(0, 0, 7, 9))}, covered, nil},
		{"tagged before any", []classify.Rule{rule(vlan(1, 4094)), rule()}, "", nil},
		{"more lengths before", []classify.Rule{rule(length(0, 100)), rule(length(50, 60))}, covered, nil},
		{"any length before", []classify.Rule{rule(), rule(length(50, 60))}, covered, nil},
		{"more code points before", []classify.Rule{rule(dscp(1, 2)), rule(dscp(2))}, covered, nil},
		{"fewer code points before", []classify.Rule{rule(dscp(2)), rule(dscp(1, 2))}, "", nil},
		{"more interfaces before", []classify.Rule{rule(interfaces(1, 2)), rule(interfaces(2))}, covered, nil},
		{"another interface before", []classify.Rule{rule(interfaces(1)), rule(interfaces(2))}, "", nil},

		{"both halves before", []classify.Rule{rule(named("a"), from("10.0.0.0/9")), rule(named("b"), from("10.128.0.0/9")), rule(drop, from("10.0.0.0/8"))}, both, nil},
		{"both families before", []classify.Rule{rule(named("a"), from("0.0.0.0/0")), rule(named("b"), from("::/0")), rule(drop, to("10.0.0.0/8", "fd00::/8"))}, both, nil},
		{"two ranges of ports before", []classify.Rule{rule(named("a"), ports(0, 50)), rule(named("b"), ports(50, 65535)), rule(drop, ports(20, 60))}, both, nil},
		{"ports of either side before", []classify.Rule{rule(named("a"), ports(80, 80), sourcePorts(0, 1023)), rule(named("b"), ports(80, 80), sourcePorts(1024, 65535)),
			rule(drop, ports(80, 80))}, both, nil},
		{"a rule that takes no part is not named", []classify.Rule{rule(named("x"), from("10.0.0.0/16")), rule(named("a"), from("10.0.0.0/9")),
			rule(named("b"), from("10.128.0.0/9")), rule(drop, from("10.0.0.0/8"))}, both, nil},
		{"all ports before any: what has none is not covered", []classify.Rule{rule(named("a"), ports(0, 100)), rule(named("b"), ports(101, 65535)), rule(drop)}, "", nil},
		{"one address is left", []classify.Rule{rule(named("a"), from("10.0.0.0/31")), rule(named("b"), from("10.0.0.2/32")), rule(drop, from("10.0.0.0/30"))}, "", nil},
		{"one half excludes", []classify.Rule{rule(named("a"), from("10.0.0.0/9"), notTo("10.1.1.1/32")), rule(named("b"), from("10.128.0.0/9")), rule(drop, from("10.0.0.0/8"))}, "", nil},
		{"one half excludes something else", []classify.Rule{rule(named("a"), from("10.0.0.0/9"), notTo("10.1.1.1/32")), rule(named("b"), from("10.128.0.0/9")),
			rule(drop, from("10.0.0.0/8"), to("10.2.0.0/16"))}, both, nil},
		{"one half has a TTL", []classify.Rule{rule(named("a"), from("10.0.0.0/9"), ttl(1)), rule(named("b"), from("10.128.0.0/9")), rule(drop, from("10.0.0.0/8"))}, "", nil},
		{"one half is a shadow rule", []classify.Rule{rule(named("a"), from("10.0.0.0/9"), shadow), rule(named("b"), from("10.128.0.0/9")), rule(drop, from("10.0.0.0/8"))}, "", nil},
		{"fragments that nobody stops", []classify.Rule{rule(named("a"), from("10.0.0.0/8"), ports(80, 80), protocol(6)), rule(named("b"), ports(0, 65535), protocol(6), from("10.0.0.0/9")),
			rule(drop, from("10.0.0.0/8"), ports(80, 81), protocol(6))}, "", nil},

		{"as the default does", []classify.Rule{rule(id(99)), rule(shadow)}, byDefault, accepting},
		{"an explicit drop beats what is established, the default does not", []classify.Rule{rule(drop)}, "", nil},
		{"as the next rule does", []classify.Rule{rule(id(99), from("10.1.0.0/16")), rule(named("b"), from("10.0.0.0/8"))}, byAnother, nil},
		{"with another between", []classify.Rule{rule(id(99), from("10.1.0.0/16")), rule(drop, to("10.9.0.0/16")), rule(named("b"), from("10.0.0.0/8"))}, "", nil},
		{"with another between that never meets it", []classify.Rule{rule(id(99), from("10.1.0.0/16")), rule(drop, from("10.2.0.0/16")), rule(named("b"), from("10.0.0.0/8"))}, byAnother, nil},
		{"its later fragments meet what follows", []classify.Rule{rule(id(99), from("10.1.0.0/16"), ports(80, 80)), rule(named("b"), from("10.0.0.0/8"))}, "", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if !slices.ContainsFunc(c.rules, func(r classify.Rule) bool { return r.ID == 99 }) {
				c.rules[len(c.rules)-1].ID = 99
			}
			p := policy(classify.Drop, classify.FragDefault, c.rules...)
			if c.policy != nil {
				c.policy(&p)
			}
			got := ""
			for _, f := range classify.Lint([]classify.Policy{p}) {
				if f.ID == 99 {
					got += f.Text
				}
			}
			if got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestAFindingNamesRuleAndReason(t *testing.T) {
	got := classify.Lint([]classify.Policy{policy(classify.Drop, classify.FragDefault,
		rule(id(1), named("a"), from("10.0.0.0/9")), rule(id(2), named("b"), from("10.128.0.0/9")), rule(id(3), named("c"), from("10.0.0.0/8")), rule(id(4), named("d"), from()))})
	want := []classify.Finding{
		{Policy: "ingress", Rule: "c", ID: 3, Kind: classify.Unreachable, By: []string{"a", "b"}, Text: "rules a and b before it match all that it could together: it is never reached"},
		{Policy: "ingress", Rule: "d", ID: 4, Kind: classify.NeverMatches, Text: "from is an empty set: it never matches"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = classify.Lint([]classify.Policy{policy(classify.Drop, classify.FragDefault, rule(id(1), named("a"), from("10.0.0.0/9")), rule(id(2), named("b"), from("10.0.0.0/8")))})
	want = []classify.Finding{{Policy: "ingress", Rule: "a", ID: 1, Kind: classify.Redundant, By: []string{"b"},
		Text: "rule b behind it does the same, and none in between differs: without it no verdict changes"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestLintKnowsEveryFieldOfARule: a new field is a condition that rules must share, until somebody has looked whether
// its zero value means any, and whether it is one at all.
func TestLintKnowsEveryFieldOfARule(t *testing.T) {
	understood := []string{"ID", "Name", "Action", "Shadow", "From", "To", "NotFrom", "NotTo", "Protocol", "Ports", "SourcePorts",
		"Argument", "Sample", "TTL", "TCPMask", "TCPFlags", "ICMPTypes", "Fragment", "VLANs", "Lengths", "DSCP", "Interfaces"}
	rest := []string{} // compared as they are; their zero value is any
	for i := range reflect.TypeFor[classify.Rule]().NumField() {
		if name := reflect.TypeFor[classify.Rule]().Field(i).Name; !slices.Contains(append(understood, rest...), name) {
			t.Errorf("Rule.%s: if it is a condition whose zero value matches everything, name it under rest here; if it is none, under understood here and in restFields (lint_extent.go)", name)
		}
	}
}

// effectless are the ids of what lint found, by kind.
func effectless(policies []classify.Policy) (useless, redundant map[uint32]bool) {
	useless, redundant = map[uint32]bool{}, map[uint32]bool{}
	for _, f := range classify.Lint(policies) {
		if f.Kind == classify.Redundant {
			redundant[f.ID] = true
		} else {
			useless[f.ID] = true
		}
	}
	return useless, redundant
}

func without(p classify.Policy, ids map[uint32]bool) classify.Policy {
	p.Rules = slices.DeleteFunc(slices.Clone(p.Rules), func(r classify.Rule) bool { return ids[r.ID] })
	return p
}

// dense returns rules of few addresses and ports, so that several cover one together and neighbours do the same.
func dense(rng *rand.Rand) classify.Policy {
	p := policy(classify.Action(rng.IntN(3)), classify.Fragments(rng.IntN(3)))
	prefix := func() string {
		bits := 29 + rng.IntN(4)
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(8))}), bits).Masked().String()
	}
	for i := range 3 + rng.IntN(20) {
		r := rule(id(uint32(i+1)), named(fmt.Sprintf("r%d", i+1)))
		if rng.IntN(3) > 0 {
			from(prefix(), prefix())(&r)
		}
		if rng.IntN(3) > 0 {
			to(prefix())(&r)
		}
		if rng.IntN(2) > 0 {
			r.Protocol = 6
			first := rng.IntN(3)
			ports(uint16(first), uint16(first+rng.IntN(3)))(&r)
		}
		if rng.IntN(8) == 0 {
			notTo(prefix())(&r)
		}
		if rng.IntN(3) == 0 {
			r.Action = classify.Drop
		}
		r.Shadow = rng.IntN(10) == 0
		if rng.IntN(10) == 0 {
			r.TTL = 64
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

// TestWhatLintFindsCanBeLeftOut: what it calls unreachable decides no packet and counts none; without what it calls
// redundant each verdict stays.
func TestWhatLintFindsCanBeLeftOut(t *testing.T) {
	useless, redundant, joint := 0, 0, 0
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 6))
		policies := classifytest.Policies(rng)
		if seed%2 == 0 {
			policies = []classify.Policy{dense(rng)}
		}
		for _, p := range policies {
			never, same := effectless([]classify.Policy{p})
			for _, f := range classify.Lint([]classify.Policy{p}) {
				if f.Kind == classify.Unreachable && len(f.By) > 1 {
					joint++
				}
			}
			useless, redundant = useless+len(never), redundant+len(same)
			short, shorter := without(p, never), without(without(p, never), same)
			for _, pk := range classifytest.Packets(rng, []classify.Policy{p}, 200) {
				want := classify.Judge(p, pk)
				if got := classify.Judge(short, pk); !reflect.DeepEqual(want, got) {
					t.Fatalf("seed %d: %+v is judged %+v, and %+v without the rules that lint calls unreachable", seed, pk, want, got)
				}
				if got := classify.Judge(shorter, pk); want.Action != got.Action {
					t.Fatalf("seed %d: %+v is judged %+v, and %+v without the rules that lint calls redundant", seed, pk, want, got)
				}
				for id := range same {
					if got := classify.Judge(without(p, map[uint32]bool{id: true}), pk); want.Action != got.Action {
						t.Fatalf("seed %d: %+v is judged %+v, and %+v without rule %d, which lint calls redundant", seed, pk, want, got, id)
					}
				}
			}
		}
	}
	if useless < 1000 || redundant < 300 || joint < 20 {
		t.Errorf("lint found only %d rules that have no effect, %d of them by several together, and %d that are redundant", useless, joint, redundant)
	}
}

// TestPlantedRulesAreFound: into rule sets of every shape go rules that are split, and then come once more as a whole.
func TestPlantedRulesAreFound(t *testing.T) {
	for seed := range uint64(20) {
		for _, shape := range classifytest.Shapes {
			rng := rand.New(rand.NewPCG(seed, 33))
			rules := classifytest.Rules(rng, shape, 2000)
			planted := map[uint32]string{}
			for n := range 20 {
				bits := 9 + rng.IntN(20)
				whole := netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256))}), bits).Masked()
				half := netip.PrefixFrom(whole.Addr(), bits+1)
				raw := half.Addr().As4()
				raw[bits/8] |= 0x80 >> (bits % 8)
				other := netip.PrefixFrom(netip.AddrFrom4(raw), bits+1)
				at := uint32(100_000 + 10*n)
				first := rule(id(at), named("first"), drop, from(half.String()), protocol(6), ports(80, 90))
				second := rule(id(at+1), named("second"), from(other.String()), protocol(6), ports(70, 85))
				third := rule(id(at+2), named("third"), drop, from(other.String()), protocol(6), ports(86, 99))
				hidden := rule(id(at+3), named("hidden"), from(whole.String()), protocol(6), ports(80, 90))
				if seed%2 == 0 { // and by the destination alone
					for _, r := range []*classify.Rule{&first, &second, &third, &hidden} {
						r.From, r.To = nil, r.From
					}
				}
				// Their order is kept, and others may come in between.
				place := rng.IntN(len(rules))
				for _, r := range []classify.Rule{first, second, third, hidden} {
					rules = slices.Insert(rules, place, r)
					place += 1 + rng.IntN(len(rules)-place)
				}
				planted[at+3] = "hidden"
			}
			for _, f := range classify.Lint([]classify.Policy{policy(classify.Drop, classify.FragDefault, rules...)}) {
				if f.Kind == classify.Unreachable {
					delete(planted, f.ID)
				}
			}
			if len(planted) > 0 {
				t.Errorf("%s, seed %d: not found: %v", shape, seed, planted)
			}
		}
	}
}

// TestLintFindsWhatComparingEveryPairFinds: each rule that an earlier one makes unreachable is found, and named.
func TestLintFindsWhatComparingEveryPairFinds(t *testing.T) {
	found := 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 31))
		policies := classifytest.Policies(rng)
		for _, shape := range classifytest.Shapes {
			policies = append(policies, policy(classify.Drop, classify.FragDefault, classifytest.Rules(rng, shape, 60)...))
		}
		for _, p := range policies {
			var want []uint32
			for i := range p.Rules {
				for j := range p.Rules[:i+1] { // a pair by itself, or a rule by itself
					pair := p
					pair.Rules = []classify.Rule{p.Rules[j], p.Rules[i]}
					if i == j {
						pair.Rules = pair.Rules[:1]
					}
					if never, _ := effectless([]classify.Policy{pair}); never[p.Rules[i].ID] {
						want = append(want, p.Rules[i].ID)
						break
					}
				}
			}
			var got []uint32
			for _, f := range classify.Lint([]classify.Policy{p}) {
				if f.Kind != classify.Redundant && slices.Contains(want, f.ID) { // others are covered by several
					got = append(got, f.ID)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: found %v, want %v", seed, got, want)
			}
			found += len(got)
		}
	}
	if found < 500 {
		t.Errorf("only %d findings", found)
	}
}

func TestTheOutermostPrefixesHoldAllOthers(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 55))
	for n := range 2000 {
		list := make([]netip.Prefix, rng.IntN(30))
		for i := range list {
			list[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rng.IntN(2)), byte(rng.IntN(4)), byte(rng.IntN(256))}), 12+rng.IntN(21))
			if rng.IntN(4) == 0 {
				list[i] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(rng.IntN(16))}), 120+rng.IntN(9))
			}
			if n%3 > 0 {
				list[i] = list[i].Masked()
			}
		}
		if n%3 > 1 {
			slices.SortFunc(list, netip.Prefix.Compare)
		}
		var want []netip.Prefix
		for i, p := range list {
			within := func(j int) bool {
				q := list[j]
				return j != i && q.Bits() <= p.Bits() && q.Contains(p.Addr()) && (q.Masked() != p.Masked() || j < i)
			}
			alone := true
			for j := range list {
				alone = alone && !within(j)
			}
			if alone {
				want = append(want, p.Masked())
			}
		}
		slices.SortFunc(want, netip.Prefix.Compare)
		before := slices.Clone(list)
		if got := classify.Outermost(list); !slices.Equal(got, want) {
			t.Fatalf("of %v: %v, want %v", list, got, want)
		}
		if !slices.Equal(before, list) {
			t.Fatal("the list was changed")
		}
	}
}

func BenchmarkLint(b *testing.B) {
	for _, shape := range classifytest.Shapes {
		b.Run(string(shape), func(b *testing.B) {
			p := policy(classify.Drop, classify.FragDefault, classifytest.Rules(rand.New(rand.NewPCG(1, 32)), shape, 100_000)...)
			for b.Loop() {
				classify.Lint([]classify.Policy{p})
			}
		})
	}
}
