package classify_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/xdp/classify"
)

// prefixes parses a list; none gives the empty list that matches nothing.
func prefixes(list ...string) []netip.Prefix {
	out := []netip.Prefix{}
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// packet returns a TCP packet, TTL 64, from port 40000.
func packet(src, dst string, port uint16) classify.Packet {
	return classify.Packet{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: 6,
		SrcPort: 40000, DstPort: port, HasPorts: true, TTL: 64}
}

// laterFragment returns a fragment of p that shows no ports.
func laterFragment(p classify.Packet) classify.Packet {
	p.SrcPort, p.DstPort, p.HasPorts, p.Fragment, p.NonFirst = 0, 0, false, true, true
	return p
}

func firstFragment(p classify.Packet) classify.Packet {
	p.Fragment = true
	return p
}

func udp(p classify.Packet) classify.Packet {
	p.Protocol = 17
	return p
}

func icmp(p classify.Packet) classify.Packet {
	p.Protocol, p.HasPorts, p.SrcPort, p.DstPort = 1, false, 0, 0
	return p
}

func withTTL(p classify.Packet, ttl uint8) classify.Packet {
	p.TTL = ttl
	return p
}

// rule returns rule 1, any protocol, accept, changed by the given functions.
func rule(change ...func(*classify.Rule)) classify.Rule {
	r := classify.Rule{ID: 1, Name: "one", Protocol: classify.AnyProtocol, Action: classify.Accept}
	for _, c := range change {
		c(&r)
	}
	return r
}

func id(n uint32) func(*classify.Rule) { return func(r *classify.Rule) { r.ID = n } }
func from(p ...string) func(*classify.Rule) {
	return func(r *classify.Rule) { r.From = prefixes(p...) }
}
func to(p ...string) func(*classify.Rule) { return func(r *classify.Rule) { r.To = prefixes(p...) } }
func notFrom(p ...string) func(*classify.Rule) {
	return func(r *classify.Rule) { r.NotFrom = prefixes(p...) }
}
func notTo(p ...string) func(*classify.Rule) {
	return func(r *classify.Rule) { r.NotTo = prefixes(p...) }
}
func protocol(n int) func(*classify.Rule) { return func(r *classify.Rule) { r.Protocol = n } }
func ports(ranges ...uint16) func(*classify.Rule) {
	return func(r *classify.Rule) { r.Ports = portRanges(ranges) }
}
func sourcePorts(ranges ...uint16) func(*classify.Rule) {
	return func(r *classify.Rule) { r.SourcePorts = portRanges(ranges) }
}
func ttl(n uint8) func(*classify.Rule) { return func(r *classify.Rule) { r.TTL = n } }
func drop(r *classify.Rule)            { r.Action = classify.Drop }
func shadow(r *classify.Rule)          { r.Shadow = true }

// portRanges pairs first and last.
func portRanges(ends []uint16) []classify.PortRange {
	out := []classify.PortRange{}
	for i := 0; i+1 < len(ends); i += 2 {
		out = append(out, classify.PortRange{First: ends[i], Last: ends[i+1]})
	}
	return out
}

func policy(def classify.Action, fragments classify.Fragments, rules ...classify.Rule) classify.Policy {
	return classify.Policy{Name: "ingress", Rules: rules, Default: def, Fragments: fragments}
}

var (
	byRule       = classify.Decision{Action: classify.Accept, Reason: classify.ByRule, Rule: 1}
	byDefault    = classify.Decision{Action: classify.Drop, Reason: classify.ByDefault}
	byFragment   = classify.Decision{Action: classify.Drop, Reason: classify.ByFragment}
	fragAccepted = classify.Decision{Action: classify.Accept, Reason: classify.ByFragmentRule}
	fragDropped  = classify.Decision{Action: classify.Drop, Reason: classify.ByFragmentRule}
	continues    = classify.Decision{Action: classify.Continue, Reason: classify.ByDefault}
)

type judgement struct {
	name   string
	policy classify.Policy
	packet classify.Packet
	want   classify.Decision
}

// one makes a judgement of a single rule under default: drop.
func one(name string, r classify.Rule, p classify.Packet, want classify.Decision) judgement {
	return judgement{name, policy(classify.Drop, classify.FragDefault, r), p, want}
}

func TestModelAndTablesJudgeAsDocumented(t *testing.T) {
	web4 := packet("192.0.2.7", "198.18.0.9", 443)
	web6 := packet("2001:db8::7", "fd00::9", 443)
	cases := []judgement{
		one("a rule without conditions matches IPv4", rule(), web4, byRule),
		one("a rule without conditions matches IPv6", rule(), web6, byRule),
		one("from contains the source", rule(from("192.0.2.0/24")), web4, byRule),
		one("from looks at the source only", rule(from("198.18.0.0/15")), web4, byDefault),
		one("to contains the destination", rule(to("198.18.0.0/15")), web4, byRule),
		one("from of one family keeps the other out", rule(from("192.0.2.0/24")), web6, byDefault),
		one("0.0.0.0/0 is all of IPv4", rule(from("0.0.0.0/0")), web4, byRule),
		one("0.0.0.0/0 is nothing of IPv6", rule(from("0.0.0.0/0")), web6, byDefault),
		one("::/0 is all of IPv6", rule(from("::/0")), web6, byRule),
		one("an unmasked prefix counts as masked", rule(from("192.0.2.200/24")), web4, byRule),
		one("an empty list matches nothing", rule(from()), web4, byDefault),
		one("empty ports match nothing", rule(ports()), web4, byDefault),
		one("empty ports match no later fragment either", rule(ports()), laterFragment(web4), byDefault),
		one("not_from excludes", rule(notFrom("192.0.2.7/32")), web4, byDefault),
		one("not_from beats a longer from", rule(from("192.0.2.7/32"), notFrom("192.0.2.0/24")), web4, byDefault),
		one("not_from of IPv4 leaves IPv6 alone", rule(notFrom("0.0.0.0/0")), web6, byRule),
		one("an empty not_from excludes nothing", rule(notFrom()), web4, byRule),
		one("not_to excludes", rule(notTo("fd00::/8")), web6, byDefault),
		one("the protocol must be equal", rule(protocol(6)), udp(web4), byDefault),
		one("protocol 0 is a protocol, not any", rule(protocol(0)), web4, byDefault),
		one("a port in a range", rule(ports(80, 80, 440, 450)), web4, byRule),
		one("a port beside the ranges", rule(ports(80, 80, 444, 450)), web4, byDefault),
		one("port 0", rule(ports(0, 0)), packet("192.0.2.7", "198.18.0.9", 0), byRule),
		one("port 65535", rule(ports(65535, 65535)), packet("192.0.2.7", "198.18.0.9", 65535), byRule),
		one("all ports", rule(ports(0, 65535)), web4, byRule),
		one("all ports do not match what has none", rule(ports(0, 65535)), icmp(web4), byDefault),
		one("source ports", rule(sourcePorts(40000, 40000)), web4, byRule),
		one("both kinds of ports must match", rule(ports(443, 443), sourcePorts(1, 2)), web4, byDefault),
		one("the TTL must be equal", rule(ttl(255)), web4, byDefault),
		one("TTL 255", rule(ttl(255)), withTTL(web4, 255), byRule),
		one("a rule without ports matches a later fragment", rule(from("192.0.2.0/24")), laterFragment(web4), byRule),
		one("a rule with ports hands a later fragment to the default", rule(ports(1, 1)), laterFragment(web4), byFragment),
		one("but not where the rest does not match", rule(from("10.0.0.0/8"), ports(1, 1)), laterFragment(web4), byDefault),
		one("nor where the protocol differs", rule(protocol(17), ports(1, 1)), laterFragment(web4), byDefault),
		one("a first fragment shows its ports", rule(ports(443, 443)), firstFragment(web4), byRule),
		{"no rules: the default", policy(classify.Accept, classify.FragDefault), web4,
			classify.Decision{Action: classify.Accept, Reason: classify.ByDefault}},
		{"no rules and continue", policy(classify.Continue, classify.FragDefault), web4, continues},
		{"the first match wins", policy(classify.Accept, classify.FragDefault, rule(id(2), drop), rule()), web4,
			classify.Decision{Action: classify.Drop, Reason: classify.ByRule, Rule: 2}},
		{"a shadow rule counts and continues", policy(classify.Drop, classify.FragDefault, rule(id(2), shadow, drop), rule()), web4,
			classify.Decision{Action: classify.Accept, Reason: classify.ByRule, Rule: 1, Shadows: []uint32{2}}},
		{"shadow rules count before a default, too", policy(classify.Drop, classify.FragDefault, rule(id(3), shadow), rule(id(2), shadow)), web4,
			classify.Decision{Action: classify.Drop, Reason: classify.ByDefault, Shadows: []uint32{3, 2}}},
		{"overlapping ranges of a long shadow rule count once", policy(classify.Drop, classify.FragDefault,
			rule(shadow, ports(1, 1, 3, 3, 5, 5, 7, 7, 440, 450, 443, 460, 470, 470))), web4,
			classify.Decision{Action: classify.Drop, Reason: classify.ByDefault, Shadows: []uint32{1}}},
		{"a later fragment passes over shadow rules with ports", policy(classify.Drop, classify.FragDefault, rule(shadow, ports(443, 443))),
			laterFragment(web4), byDefault},
		{"fragments: accept", policy(classify.Drop, classify.FragAccept, rule(drop, ports(443, 443))), laterFragment(web4), fragAccepted},
		{"fragments: accept leaves rules without ports", policy(classify.Drop, classify.FragAccept, rule(drop)), laterFragment(web4),
			classify.Decision{Action: classify.Drop, Reason: classify.ByRule, Rule: 1}},
		{"fragments: drop takes first fragments, too", policy(classify.Accept, classify.FragDrop, rule()), firstFragment(web4), fragDropped},
		{"fragments: drop drops in a policy that continues", policy(classify.Continue, classify.FragDrop), laterFragment(web6), fragDropped},
		{"a policy that continues passes over hidden ports", policy(classify.Continue, classify.FragAccept, rule(id(2), ports(443, 443)), rule()),
			laterFragment(web4), byRule},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tables, err := classify.Compile([]classify.Policy{policy(classify.Drop, classify.FragDefault, rule(id(9))), c.policy})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, classify.Judge(c.policy, c.packet)); diff != "" {
				t.Errorf("the model (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.want, tables.Eval(1, c.packet)); diff != "" {
				t.Errorf("the tables (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPassedOverSaysWhyEachRuleDidNotAct(t *testing.T) {
	p := policy(classify.Drop, classify.FragDefault,
		rule(id(1), from("10.0.0.0/8")), rule(id(2), notFrom("192.0.2.0/24")), rule(id(3), to("10.0.0.0/8")),
		rule(id(4), notTo("198.18.0.0/15")), rule(id(5), protocol(17)), rule(id(6), ttl(255)), rule(id(7), ports()),
		rule(id(8), ports(80, 80, 8000, 8999)), rule(id(9), sourcePorts(1, 1)), rule(id(10), shadow),
		rule(id(11), drop), rule(id(12)))
	for i := range p.Rules {
		p.Rules[i].Name = "r"
	}
	got := classify.PassedOver(p, packet("192.0.2.7", "198.18.0.9", 81))
	want := []classify.Passed{
		{1, "r", "from does not contain 192.0.2.7"},
		{2, "r", "not_from contains 192.0.2.7"},
		{3, "r", "to does not contain 198.18.0.9"},
		{4, "r", "not_to contains 198.18.0.9"},
		{5, "r", "protocol is udp, not tcp"},
		{6, "r", "ttl is 255, not 64"},
		{7, "r", "its list of ports is empty"},
		{8, "r", "port 81 is not in 80,8000-8999"},
		{9, "r", "source port 40000 is not in 1"},
		{10, "r", "shadow: counted only"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a TCP packet (-want +got):\n%s", diff)
	}

	p = policy(classify.Continue, classify.FragDefault, rule(ports(443, 443)))
	fragment := laterFragment(packet("192.0.2.7", "198.18.0.9", 443))
	if diff := cmp.Diff([]classify.Passed{{1, "one", "a later fragment does not show its ports"}}, classify.PassedOver(p, fragment)); diff != "" {
		t.Errorf("a later fragment where the policy continues (-want +got):\n%s", diff)
	}
	ping := icmp(packet("192.0.2.7", "198.18.0.9", 0))
	if diff := cmp.Diff([]classify.Passed{{1, "one", "it asks for ports, and icmp has none"}}, classify.PassedOver(p, ping)); diff != "" {
		t.Errorf("a ping (-want +got):\n%s", diff)
	}
	p.Fragments = classify.FragDrop
	if diff := cmp.Diff([]classify.Passed(nil), classify.PassedOver(p, fragment), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("fragments: drop decides before any rule (-want +got):\n%s", diff)
	}
}
