package config

import (
	"math/bits"
	"slices"
	"strings"
)

// judged is which policy a rule stands in: not all can see everything.
type judged int

const (
	atIngress judged = iota
	atEgress
	ofWorkload
	ofLAN
)

// match fills what a rule asks for beside addresses, protocol and ports.
func (b *builder) match(r *rawRule, in judged, out *Rule) {
	out.TCPFlags = b.tcpFlags(r)
	out.ICMPTypes = b.icmpTypes(r)
	out.Fragment = r.Fragment.v
	out.VLANs = ranges(b, r.VLAN, func(v vlans) Range { return v.Range })
	out.Lengths = ranges(b, r.Length, func(v lengths) Range { return v.Range })
	for _, d := range ranges(b, r.DSCP, func(d dscp) dscp { return d }) {
		out.DSCP = append(out.DSCP, uint8(d))
	}
	out.TTL = uint8(r.TTL.v)
	out.Interfaces = b.limitedTo(r, in)
	b.fragmentOf(r)
	if in != atIngress && r.VLAN.written() {
		b.add(r.VLAN.at, bad("packets have no VLAN tag here").or("vlan is for policy.ingress: remove it"))
	}
}

// ranges takes the good values of a list that must not be empty.
func ranges[T, R any](b *builder, l list[val[T]], of func(T) R) []R {
	if l.empty() {
		b.add(l.at, emptyMatch())
	}
	var out []R
	for _, v := range good(l) {
		out = append(out, of(v))
	}
	return out
}

func (b *builder) tcpFlags(r *rawRule) TCPFlags {
	var out TCPFlags
	if !r.TCPFlags.written() {
		return out
	}
	if r.TCPFlags.empty() {
		b.add(r.TCPFlags.at, emptyMatch())
	}
	if !r.Protocol.written() || r.Protocol.ok && r.Protocol.v.Protocol != protocolTCP {
		b.add(r.TCPFlags.at, bad("tcp_flags need TCP").or("write protocol: tcp"))
	}
	for _, f := range r.TCPFlags.items {
		if !f.ok {
			continue
		}
		if out.Mask&f.v.bit != 0 && (out.Set&f.v.bit != 0) == f.v.clear {
			name := tcpFlagNames()[bits.TrailingZeros8(f.v.bit)]
			b.add(f.at, bad("%s is to be both set and clear", name).or("remove one of the two: no packet matches both"))
		}
		out.Mask |= f.v.bit
		if !f.v.clear {
			out.Set |= f.v.bit
		}
	}
	return out
}

func (b *builder) icmpTypes(r *rawRule) []ICMPType {
	if !r.ICMPTypes.written() {
		return nil
	}
	if r.ICMPTypes.empty() {
		b.add(r.ICMPTypes.at, emptyMatch())
	}
	p := r.Protocol.v.Protocol
	if icmp := p == protocolICMP || p == protocolICMPv6; !r.Protocol.written() || r.Protocol.ok && !icmp {
		b.add(r.ICMPTypes.at, bad("icmp_types need ICMP").or("write protocol: icmp or icmpv6"))
		return nil
	}
	if !r.Protocol.ok {
		return nil
	}
	var out []ICMPType
	for _, i := range r.ICMPTypes.items {
		if !i.ok {
			continue
		}
		t, wrong := i.v.of(p)
		if !wrong.none() {
			b.add(i.at, wrong)
		}
		out = append(out, t)
	}
	return out
}

// fragmentOf reports a fragment that does not show what the rule asks for.
func (b *builder) fragmentOf(r *rawRule) {
	if r.Fragment.v != FragmentLater {
		return
	}
	for _, asked := range []struct {
		at
		key string
	}{{r.Ports.at, "ports"}, {r.SourcePorts.at, "source_ports"}, {r.TCPFlags.at, "tcp_flags"}, {r.ICMPTypes.at, "icmp_types"}} {
		if asked.written() {
			b.add(asked.at, bad("the rule can never match: a later fragment shows no %s", asked.key).or("remove %s, or write fragment: first", asked.key))
		}
	}
}

// fragmentsDropped reports rules about fragments in a policy that drops them all before its rules.
func (b *builder) fragmentsDropped(raw *rawRules) {
	for i := range raw.Rules.items {
		f := &raw.Rules.items[i].Fragment
		if raw.Fragments.v == FragmentsDrop && f.ok && f.v != FragmentWhole {
			b.add(f.at, bad("the rule can never match: its policy drops all fragments before").or("remove fragments: drop, or this rule"))
		}
	}
}

// aboutFragments says whether a rule is about what its policy drops with fragments: drop.
func aboutFragments(r Rule) bool { return r.Fragment != FragmentAny && r.Fragment != FragmentWhole }

// limitedTo resolves interfaces: they are named in the file, and the policy judges what comes in, or leaves, by them.
func (b *builder) limitedTo(r *rawRule, in judged) []string {
	l := &r.Interfaces
	if l.empty() {
		b.add(l.at, emptyMatch())
	}
	if l.written() && in == ofWorkload {
		b.add(l.at, bad("a workload's policy is the same on every interface").or("remove interfaces, or write the rule in policy.ingress"))
		return nil
	}
	if l.written() && in == ofLAN {
		b.add(l.at, bad("a LAN's policy is about its own interface").or("remove interfaces"))
		return nil
	}
	var out []string
	seen := map[string]at{}
	for _, i := range l.items {
		b.unique(seen, string(i.v), i.ok, i.at, "interface")
		if i.ok {
			b.judgedAt(i.at, string(i.v), in)
			out = append(out, string(i.v))
		}
	}
	return out
}

// judges says whether the policy judges what passes an interface or tunnel.
func (b *builder) judges(name string, in judged) bool {
	if slices.ContainsFunc(b.cfg.Tunnels, func(t Tunnel) bool { return t.Name == name }) {
		return true
	}
	i := slices.IndexFunc(b.cfg.Interfaces, func(i Interface) bool { return i.Name == name })
	return i >= 0 && fits(b.cfg.Interfaces[i].Role, in)
}

func fits(r Role, in judged) bool {
	return r == RoleUplink || r == RoleTunnel || in == atEgress && r != RoleNone && r != RoleWorkload
}

func (b *builder) judgedAt(a at, name string, in judged) {
	if b.ask(question{passes, name}, in).known {
		return
	}
	var all []string
	for _, t := range b.cfg.Tunnels {
		all = append(all, t.Name)
	}
	for _, i := range b.cfg.Interfaces {
		switch {
		case i.Name != name:
			if fits(i.Role, in) {
				all = append(all, i.Name)
			}
		case in == atEgress:
			b.add(a, bad("policy.egress does not judge what leaves by %s", name).or("name an interface with a role that is no workload's"))
			return
		default:
			b.add(a, bad("policy.ingress does not judge what comes in by %s", name).or("name an uplink or a tunnel"))
			return
		}
	}
	if b.unsureLinks {
		return // it may stand where the file could not be read
	}
	p := bad("no interface or tunnel is named %q", name)
	if near := nearest(name, all); near != "" {
		p = p.or("did you mean %s?", near)
	} else if len(all) > 0 {
		p = p.or("name one of %s", strings.Join(all, ", "))
	}
	b.add(a, p)
}
