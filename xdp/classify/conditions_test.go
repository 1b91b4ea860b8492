package classify_test

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// flags asks for TCP with some set and some clear.
func flags(set, clear uint8) func(*classify.Rule) {
	return func(r *classify.Rule) { r.Protocol, r.TCPMask, r.TCPFlags = 6, set|clear, set }
}

// types asks for ICMP; each is a type, and with a code type<<8 | code | 1<<16.
func types(list ...int) func(*classify.Rule) {
	return func(r *classify.Rule) {
		r.Protocol, r.ICMPTypes = 1, []classify.ICMPRange{}
		for _, n := range list {
			one := classify.ICMPRange{TypeFirst: uint8(n), TypeLast: uint8(n), CodeLast: 255}
			if n>>16 != 0 {
				one = classify.ICMPRange{TypeFirst: uint8(n >> 8), TypeLast: uint8(n >> 8), CodeFirst: uint8(n), CodeLast: uint8(n)}
			}
			r.ICMPTypes = append(r.ICMPTypes, one)
		}
	}
}

const needed = 1<<16 | 3<<8 | 4 // fragmentation needed

func fragment(f classify.FragmentMatch) func(*classify.Rule) {
	return func(r *classify.Rule) { r.Fragment = f }
}
func vlan(ends ...uint16) func(*classify.Rule) {
	return func(r *classify.Rule) { r.VLANs = portRanges(ends) }
}
func length(ends ...uint16) func(*classify.Rule) {
	return func(r *classify.Rule) { r.Lengths = portRanges(ends) }
}
func dscp(points ...int) func(*classify.Rule) {
	return func(r *classify.Rule) {
		for _, p := range points {
			r.DSCP |= 1 << p
		}
	}
}

// interfaces are eth1 of index 1 and so on; 0 is one that is not there.
func interfaces(list ...uint32) func(*classify.Rule) {
	return func(r *classify.Rule) {
		r.Interfaces = []classify.Interface{}
		for _, n := range list {
			r.Interfaces = append(r.Interfaces, classify.Interface{Name: "eth" + string('0'+rune(n)), Index: n})
		}
	}
}

func changed(p classify.Packet, by func(*classify.Packet)) classify.Packet {
	by(&p)
	return p
}

func TestConditions(t *testing.T) {
	web := changed(packet("192.0.2.7", "198.18.0.9", 443), func(p *classify.Packet) { p.TCPFlags, p.Length, p.Ifindex = ack, 1500, 1 })
	ping := changed(icmp(web), func(p *classify.Packet) { p.TCPFlags, p.HasICMP, p.ICMPType, p.ICMPCode = 0, true, 3, 4 })
	foreign := changed(ping, func(p *classify.Packet) { p.HasICMP, p.ICMPType, p.ICMPCode = false, 0, 0 }) // ICMP in IPv6
	first, later := firstFragment(web), laterFragment(changed(web, func(p *classify.Packet) { p.TCPFlags = 0 }))
	with := func(by func(*classify.Packet)) classify.Packet { return changed(web, by) }
	const matches = ""
	cases := []struct {
		rule   classify.Rule
		packet classify.Packet
		why    string // it does not match
	}{
		{rule(flags(ack, syn)), web, matches},
		{rule(flags(0, syn|rst)), web, matches},
		{rule(flags(syn, ack)), web, "tcp flags are A, not syn,!ack"},
		{rule(flags(0, ack)), web, "tcp flags are A, not !ack"},
		{rule(flags(syn, 0)), with(func(p *classify.Packet) { p.TCPFlags = 0 }), "tcp flags are none, not syn"},
		{rule(flags(syn|ack, 0), ports(443, 443)), with(func(p *classify.Packet) { p.TCPFlags = 0xff }), matches},
		{rule(flags(syn, 0), ports(80, 80)), with(func(p *classify.Packet) { p.TCPFlags = syn }), "port 443 is not in 80"},
		{rule(flags(syn, 0)), udp(web), "protocol is tcp, not udp"},
		{rule(types(8, 3)), ping, matches},
		{rule(types(8, needed)), ping, matches},
		{rule(types(8, needed-1, 4)), ping, "icmp type 3/4 is not in 8,3/3,4"},
		{rule(types()), ping, "its list of ICMP types is empty"},
		{rule(types(0)), foreign, "it asks for ICMP types, and icmp has none that can be read"},
		{rule(fragment(classify.FragmentNo)), web, matches},
		{rule(fragment(classify.FragmentNo)), first, "fragment is whole, and the packet is the first one"},
		{rule(fragment(classify.FragmentYes)), first, matches},
		{rule(fragment(classify.FragmentYes)), later, matches},
		{rule(fragment(classify.FragmentYes)), web, "fragment is fragmented, and the packet is whole"},
		{rule(fragment(classify.FragmentInitial), ports(443, 443)), first, matches},
		{rule(fragment(classify.FragmentInitial)), web, "fragment is first, and the packet is whole"},
		{rule(fragment(classify.FragmentInitial)), later, "fragment is first, and the packet is a later one"},
		{rule(fragment(classify.FragmentLater)), later, matches},
		{rule(fragment(classify.FragmentLater)), first, "fragment is later, and the packet is the first one"},
		{rule(vlan(0, 0)), web, matches},
		{rule(vlan(0, 0, 100, 200)), with(func(p *classify.Packet) { p.VLAN = 200 }), matches},
		{rule(vlan(0, 0, 100, 199)), with(func(p *classify.Packet) { p.VLAN = 200 }), "vlan 200 is not in untagged,100-199"},
		{rule(vlan(100, 100)), web, "vlan untagged is not in 100"},
		{rule(length(0, 128, 1500, 1500)), web, matches},
		{rule(length(0, 1499)), web, "length 1500 is not in 0-1499"},
		{rule(length(1501, 65535)), web, "length 1500 is not in 1501-65535"},
		{rule(length(65535, 65535)), with(func(p *classify.Packet) { p.Length = 65575 }), matches}, // IPv6
		{rule(dscp(0, 46)), web, matches},
		{rule(dscp(63)), with(func(p *classify.Packet) { p.DSCP = 63 }), matches},
		{rule(dscp(46, 10)), with(func(p *classify.Packet) { p.DSCP = 45 }), "dscp 45 is not in 10,46"},
		{rule(interfaces(2, 1)), web, matches},
		{rule(interfaces(2, 3)), web, "its interface is not in eth2,eth3"},
		{rule(interfaces(0)), with(func(p *classify.Packet) { p.Ifindex = 0 }), "its interface is not in eth0"},
		{rule(flags(ack, 0), length(1, 1500), dscp(0), vlan(0, 10), interfaces(1), fragment(classify.FragmentNo), ttl(64)), web, matches},
	}
	for _, c := range cases {
		t.Run(c.rule.Match()+"/"+c.why, func(t *testing.T) {
			p := policy(classify.Drop, classify.FragDefault, c.rule)
			tables := mustCompile(t, p)
			want := byDefault
			if c.why == matches {
				want = byRule
			}
			if diff := cmp.Diff(want, classify.Judge(p, c.packet)); diff != "" {
				t.Errorf("the model (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want, tables.Eval(0, c.packet)); diff != "" {
				t.Errorf("the tables (-want +got):\n%s", diff)
			}
			if over := classify.PassedOver(p, c.packet); c.why != matches && (len(over) != 1 || over[0].Why != c.why) {
				t.Errorf("passed over: %+v, want %q", over, c.why)
			}
			c.rule.Shadow = true
			p.Rules = []classify.Rule{c.rule}
			if got := mustCompile(t, p).Eval(0, c.packet); len(got.Shadows) == 1 != (c.why == matches) {
				t.Errorf("as a shadow rule it counted %v", got.Shadows)
			}
		})
	}
}

// TestALaterFragmentOfWhatItHides: as with ports, a rule of which all else holds gives it to the policy's fragments.
func TestALaterFragmentOfWhatItHides(t *testing.T) {
	later := laterFragment(packet("192.0.2.7", "198.18.0.9", 443))
	laterICMP := laterFragment(icmp(packet("192.0.2.7", "198.18.0.9", 0)))
	for _, c := range []struct {
		rule   classify.Rule
		packet classify.Packet
		why    string // passed over, where the policy continues
	}{
		{rule(flags(syn, 0)), later, "a later fragment does not show its TCP flags"},
		{rule(flags(syn, 0), ports(443, 443)), later, "a later fragment does not show its ports"},
		{rule(types(8)), laterICMP, "a later fragment does not show its ICMP type"},
		{rule(flags(syn, 0), ttl(64), fragment(classify.FragmentYes)), later, "a later fragment does not show its TCP flags"},
	} {
		accept := rule(id(2), drop)
		for _, p := range []classify.Policy{
			policy(classify.Accept, classify.FragDefault, c.rule, accept), policy(classify.Accept, classify.FragAccept, c.rule, accept),
		} {
			want := fragAccepted
			if p.Fragments == classify.FragDefault {
				want = classify.Decision{Action: classify.Accept, Reason: classify.ByFragment}
			}
			if diff := cmp.Diff(want, classify.Judge(p, c.packet)); diff != "" {
				t.Errorf("%s: the model (-want +got):\n%s", c.rule.Match(), diff)
			}
			if diff := cmp.Diff(want, mustCompile(t, p).Eval(0, c.packet)); diff != "" {
				t.Errorf("%s: the tables (-want +got):\n%s", c.rule.Match(), diff)
			}
		}
		over := classify.PassedOver(policy(classify.Continue, classify.FragDefault, c.rule), c.packet)
		if len(over) != 1 || over[0].Why != c.why {
			t.Errorf("passed over: %+v, want %q", over, c.why)
		}
		p := policy(classify.Accept, classify.FragDefault, c.rule, accept) // a rule of which anything else fails does not hide
		p.Rules[0].TTL = 1
		if d := mustCompile(t, p).Eval(0, c.packet); d.Rule != 2 || !cmp.Equal(d, classify.Judge(p, c.packet)) {
			t.Errorf("%s: %+v", c.rule.Match(), d)
		}
	}
}

func TestAlternativesAreMergedIntoFewEntries(t *testing.T) {
	for _, c := range []struct {
		rule    classify.Rule
		entries int
	}{
		{rule(types(3, 4, 5)), 1},
		{rule(types(8, 0, 3)), 3},
		{rule(types(3, needed)), 1},
		{rule(types(needed, needed-1, needed-2)), 1},
		{rule(types(needed, needed+256)), 1},
		{rule(types(needed, 4, 5)), 2},
		{rule(types(255, 0)), 2},
		{rule(vlan(0, 0, 1, 10, 12, 12)), 2},
		{rule(length(0, 128, 64, 200)), 1},
		{rule(interfaces(1, 2, 2, 0)), 2},
		{rule(dscp(1, 2, 3, 46)), 1},
		{rule(types(8, 3), vlan(1, 1, 3, 3), length(1, 1, 3, 3), interfaces(1, 2)), 16},
		{rule(interfaces(0)), 0},
		{rule(vlan()), 0},
		{rule(length()), 0},
	} {
		if n := len(mustCompile(t, policy(classify.Drop, classify.FragDefault, c.rule)).Rules); n != c.entries {
			t.Errorf("%s: %d entries, want %d", c.rule.Match(), n, c.entries)
		}
	}
}

// TestTheGeneratorReachesEveryCondition: a condition that no packet ever meets would be compared with nothing.
func TestTheGeneratorReachesEveryCondition(t *testing.T) {
	conditions := map[string]func(r *classify.Rule) bool{
		"tcp_flags":  func(r *classify.Rule) bool { return r.TCPMask != 0 },
		"icmp_types": func(r *classify.Rule) bool { return r.ICMPTypes != nil },
		"fragment":   func(r *classify.Rule) bool { return r.Fragment != classify.FragmentAny },
		"vlan":       func(r *classify.Rule) bool { return r.VLANs != nil },
		"length":     func(r *classify.Rule) bool { return r.Lengths != nil },
		"dscp":       func(r *classify.Rule) bool { return r.DSCP != 0 },
		"ttl":        func(r *classify.Rule) bool { return r.TTL != 0 },
		"interfaces": func(r *classify.Rule) bool { return r.Interfaces != nil },
	}
	met, missed := map[string]int{}, map[string]int{}
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 41))
		policies := classifytest.Policies(rng)
		packets := classifytest.Packets(rng, policies, 200)
		for _, of := range policies {
			for i := range of.Rules {
				r := &of.Rules[i]
				for name, has := range conditions {
					if !has(r) {
						continue
					}
					alone := policy(classify.Drop, classify.FragDefault, *r)
					alone.Rules[0].From, alone.Rules[0].To, alone.Rules[0].NotFrom, alone.Rules[0].NotTo, alone.Rules[0].Shadow = nil, nil, nil, nil, false
					for _, p := range packets {
						if classify.Judge(alone, p).Reason == classify.ByRule {
							met[name]++
						} else {
							missed[name]++
						}
					}
				}
			}
		}
	}
	for name := range conditions {
		if met[name] < 200 || missed[name] < 200 {
			t.Errorf("%s: met %d times, missed %d times", name, met[name], missed[name])
		}
	}
	t.Logf("met %v, missed %v", met, missed)
}
