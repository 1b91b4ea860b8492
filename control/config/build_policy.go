package config

import (
	"net/netip"
	"slices"
)

// policies fills the rule lists of the node, of LANs and of workloads; the last two stand in Config already.
func (b *builder) policies(raw *rawConfig) {
	b.unsureLinks = raw.Interfaces.unsure() || raw.Tunnels.unsure()
	b.cfg.Policy.Ingress = b.rules(&raw.Policy.Ingress, atIngress)
	b.cfg.Policy.Egress = b.rules(&raw.Policy.Egress, atEgress)
	for i := range raw.Interfaces.items {
		r, out := &raw.Interfaces.items[i], &b.cfg.Interfaces[i]
		for _, rules := range []*rawRules{&r.Ingress, &r.Egress} {
			if rules.written() && r.Role.v != RoleDownstream && (r.Role.ok || !r.Role.written()) {
				b.add(rules.at, bad("only a LAN has a policy of its own").or("write role: downstream, or the rules in policy: or in the workload"))
			}
		}
		out.Ingress = b.rules(&r.Ingress, ofLAN)
		out.Egress = b.rules(&r.Egress, ofLAN)
	}
	for i := range raw.Workloads.items {
		r, w := &raw.Workloads.items[i], &b.cfg.Workloads[i]
		w.Ingress = b.rules(&r.Ingress, ofWorkload)
		w.Egress = b.rules(&r.Egress, ofWorkload)
	}
}

// lockout reports policies that protect nothing, and those that would lock the operator out.
func (b *builder) lockout(raw *rawConfig) {
	uplink, unsure := false, raw.Interfaces.unsure()
	failsafe := raw.Management.written() && !raw.Management.Accept.empty()
	for _, i := range raw.Interfaces.items {
		uplink = uplink || i.Role.v == RoleUplink
		unsure = unsure || i.Role.written() && !i.Role.ok
		if i.XDP.Fail.v == "closed" && i.Role.v == RoleUplink && !failsafe {
			b.add(i.XDP.Fail.at, bad("fail: closed without a management rule would lock you out").or("write management: accept: first"))
		}
	}
	for _, rules := range []*rawRules{&raw.Policy.Ingress, &raw.Policy.Egress} {
		if Action(rules.Default.v) == Drop && !failsafe {
			b.add(rules.Default.at, bad("default: drop without a management rule would lock you out").or("write management: accept: first"))
		}
		if (Action(rules.Default.v) == Drop || rules.Rules.any()) && !uplink && !unsure {
			b.add(rules.at, bad("the policy protects nothing: no interface has role uplink").or("give an interface role: uplink"))
		}
	}
}

func (b *builder) rules(raw *rawRules, in judged) RuleList {
	out := RuleList{Default: Action(raw.Default.or(fate(Accept))), Fragments: raw.Fragments.v, Pos: raw.pos}
	if raw.Rules.cut != nil {
		out.Rules = b.rulesOf(raw.Rules.cut, in)
		b.uncertain = b.uncertain || out.Fragments == FragmentsDrop && slices.ContainsFunc(out.Rules, aboutFragments)
		return out
	}
	seen := map[string]at{}
	for i := range raw.Rules.items {
		r := &raw.Rules.items[i]
		b.unique(seen, string(r.Name.v), r.Name.ok, r.Name.at, "rule")
		out.Rules = append(out.Rules, b.ruleOf(r, in))
	}
	b.fragmentsDropped(raw)
	return out
}

// ruleOf is about one rule by itself.
func (b *builder) ruleOf(r *rawRule, in judged) Rule {
	b.socketOf(r, in)
	b.synCookie(r, in)
	return b.rule(r, in)
}

func (b *builder) rule(r *rawRule, in judged) Rule {
	from, to := b.refs(r.From), b.refs(r.To)
	b.portsOf(r.Protocol, r.Ports)
	b.portsOf(r.Protocol, r.SourcePorts)
	matches := from.families & to.families
	if matches == 0 {
		b.add(r.at, bad("the rule can never match: from is %s and to is %s", from.families, to.families))
	} else {
		b.protocolFamily(r.at, r.Protocol, matches)
	}
	out := Rule{Name: string(r.Name.v), From: from.refs, To: to.refs, NotFrom: b.except(r.NotFrom, matches),
		NotTo: b.except(r.NotTo, matches), Protocol: protocolOf(r.Protocol), Ports: portRanges(r.Ports),
		SourcePorts: portRanges(r.SourcePorts), Action: r.Action.v, Limit: b.limit(r), Socket: string(r.Socket.v), Sample: uint32(r.Log.Sample.v),
		Shadow: r.Mode.v == shadow, Pos: r.pos}
	b.match(r, in, &out)
	return out
}

func protocolOf(p val[protocol]) Protocol {
	if p.written() {
		return p.v.Protocol
	}
	return AnyProtocol
}

// synCookie reports rules with syn_cookie that do not name what they protect: listeners, by address and port.
func (b *builder) synCookie(r *rawRule, in judged) {
	if !r.Action.ok || r.Action.v != SYNCookie {
		return
	}
	switch {
	case in != atIngress:
		b.add(r.Action.at, bad("only policy.ingress can answer with cookies: what XDP sees first").
			or("move the rule there, or write action: accept; the kernel's own cookies work everywhere"))
	case !r.Protocol.written() || r.Protocol.ok && r.Protocol.v.Protocol != protocolTCP:
		b.add(r.Action.at, bad("syn_cookie is about TCP").or("write protocol: tcp"))
	case !r.Ports.written():
		b.add(r.Action.at, bad("syn_cookie needs the ports of the listeners").or("write ports:, such as [443]"))
	case !r.To.written():
		b.add(r.Action.at, bad("syn_cookie needs the addresses of the listeners").or("write to:, such as [self] or a workload's name"))
	}
}

// protocolFamily reports ICMP of the one family with addresses of the other.
func (b *builder) protocolFamily(a at, p val[protocol], addresses families) {
	switch {
	case p.ok && p.v.Protocol == protocolICMP && addresses == ipv6:
		b.add(a, bad("the rule can never match: its addresses are IPv6 and icmp is IPv4").or("write protocol: icmpv6"))
	case p.ok && p.v.Protocol == protocolICMPv6 && addresses == ipv4:
		b.add(a, bad("the rule can never match: its addresses are IPv4 and icmpv6 is IPv6").or("write protocol: icmp"))
	}
}

// portsOf reports ports of a protocol that has none, and empty lists.
func (b *builder) portsOf(p val[protocol], l list[val[ports]]) {
	if !l.written() {
		return
	}
	if l.empty() {
		b.add(l.at, emptyMatch())
	}
	if (p.ok && !p.v.hasPorts()) || !p.written() {
		b.add(l.at, bad("ports need a protocol that has them").or("write protocol: tcp, udp, udplite or sctp"))
	}
}

// emptyMatch is about a list that would match everything, which is never what emptying it was for.
func emptyMatch() problem {
	return bad("the list is empty").or("write what it should match, or remove the key")
}

func portRanges(l list[val[ports]]) []PortRange {
	var out []PortRange
	for _, p := range good(l) {
		out = append(out, p.PortRange)
	}
	return out
}

// resolved is a list of references whose names are known, and the families that it can match.
type resolved struct {
	refs     []Ref
	families families
}

func (b *builder) refs(l list[val[ref]]) resolved {
	var out resolved
	for _, r := range l.items {
		have := bothFamilies
		if r.ok {
			have = b.resolve(&r)
			out.refs = append(out.refs, r.v.Ref)
		}
		out.families |= have
	}
	if len(l.items) == 0 || l.unsure() {
		out.families = bothFamilies
	}
	if l.empty() {
		b.add(l.at, emptyMatch())
	}
	return out
}

// resolve finds whose a name is and tells its families.
func (b *builder) resolve(r *val[ref]) families {
	text := r.v.Set
	switch {
	case r.v.Prefix != netip.Prefix{}:
		return familyOf(r.v.Prefix.Addr())
	case text == "": // self
		return bothFamilies
	}
	has := b.ask(question{whose, text}, 0)
	switch {
	case !has.known:
		b.add(r.at, b.dangling(text))
		return bothFamilies
	case has.workload:
		r.v.Set, r.v.Workload = "", text
	}
	return has.families
}

// except resolves not_from or not_to: an exception outside of what the rule matches is a mistake.
func (b *builder) except(l list[val[ref]], matches families) []Ref {
	for _, r := range l.items {
		if r.ok && r.v.Prefix.IsValid() && matches != 0 && familyOf(r.v.Prefix.Addr())&matches == 0 {
			b.add(r.at, bad("the exception never applies: the rule matches %s only", matches))
		}
	}
	return b.refs(l).refs
}
