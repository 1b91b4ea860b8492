package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice/control/config"
	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/xsk"
)

// policy resolves a rule list. name is the policy's own, path its place in the file.
func (c *compiler) policy(name, path string, list config.RuleList) classify.Policy {
	p := classify.Policy{Name: name, Default: action(list.Default), Fragments: fragments(list.Fragments)}
	former := c.former(name)
	edits := classify.Edits(former.from, list.Rules, c.staysResolved)
	p.Rules = former.to
	if len(edits) > 0 {
		p.Rules = slices.Grow([]classify.Rule(nil), len(list.Rules)) // nil where there are none
	}
	ids, loud := slices.Clone(former.ids), former.loud
	at := 0
	for _, e := range edits {
		p.Rules = append(p.Rules, former.to[at:e.Before]...)
		for i := range former.to[e.Before : e.Before+e.Removed] {
			ids.remove(former.to[e.Before+i].ID)
		}
		at = e.Before + e.Removed
		for n := e.Now; n < e.Now+e.Added; n++ {
			p.Rules = append(p.Rules, c.rule(name, path, list.Rules, n))
			loud = loud || isLoud(&p.Rules[n])
		}
	}
	if len(edits) > 0 {
		p.Rules = append(p.Rules, former.to[at:]...)
	}
	for _, e := range edits { // behind all removals: a rule that moved has the id that it had
		for i := range p.Rules[e.Now : e.Now+e.Added] {
			ids.add(p.Rules[e.Now+i].ID)
		}
	}
	c.ids.used.addAll(ids)
	c.now.policies[name] = resolvedRules{list.Rules, p.Rules, ids, loud}
	if loud {
		c.warnOfShadows(p)
	}
	return p
}

// rule resolves one of a list.
func (c *compiler) rule(policy, path string, list []config.Rule, n int) classify.Rule {
	r, key, at := &list[n], policy+"/"+list[n].Name, path+".rules["+strconv.Itoa(n)+"]"
	rule := classify.Rule{
		ID: c.ids.id(key), Name: r.Name,
		From: c.resolve(r.From), To: c.resolve(r.To),
		NotFrom: c.resolve(r.NotFrom), NotTo: c.resolve(r.NotTo),
		Protocol: int(r.Protocol),
		Ports:    ranges(r.Ports), SourcePorts: ranges(r.SourcePorts),
		Action: action(r.Action), Sample: r.Sample, Shadow: r.Shadow,
	}
	switch {
	case r.Limit != nil: // in shadow mode as well: it counts what it would drop
		rule.Argument = c.limiter(key, rule.ID, r, place{r.Pos, at})
	case r.Shadow: // which only counts
	case r.Action == config.Bypass:
		rule.Argument = xsk.ID(r.Socket)
	}
	c.match(r, &rule)
	if rule.ID >= abi.RuleIDs {
		c.fail(r.Pos, at, "no rule id is left", "remove rules, or wait until the counters of removed ones are released")
	}
	return rule
}

// policies resolves every policy of the file. Workloads that are away are compiled too, for the ids of their rules: a
// container that restarts counts on.
func (c *compiler) policies() policies {
	p := policies{failsafe: c.failsafe(), system: c.system(), ingress: c.policy("ingress", "policy.ingress", c.cfg.Policy.Ingress)}
	p.shared = slices.Clone(c.limiters) // both objects number those of ingress alike
	p.egress = c.policy("egress", "policy.egress", c.cfg.Policy.Egress)
	for n, w := range c.cfg.Workloads {
		path := c.workloadPath(n) + "."
		p.workloads = append(p.workloads, workloadPolicies{
			ingress: c.policy("workload/"+w.Name+"/ingress", path+"ingress", w.Ingress),
			egress:  c.policy("workload/"+w.Name+"/egress", path+"egress", w.Egress),
		})
	}
	for n, i := range c.cfg.Interfaces {
		if i.Judged() {
			path, name := fmt.Sprintf("interfaces[%d].", n), "interface/"+i.Name
			p.lans = append(p.lans, tc.LAN{Interface: i.Name,
				Ingress: c.policy(name+"/ingress", path+"ingress", i.Ingress),
				Egress:  c.policy(name+"/egress", path+"egress", i.Egress),
			})
		}
	}
	slices.SortFunc(p.lans, func(a, b tc.LAN) int { return compareNames(a.Interface, b.Interface) })
	// Behind all rules: they come first where ids run out.
	p.ingress.DefaultID, p.egress.DefaultID = c.ids.ofDefault("ingress"), c.ids.ofDefault("egress")
	for i := range p.workloads {
		w := &p.workloads[i]
		w.ingress.DefaultID, w.egress.DefaultID = c.ids.ofDefault(w.ingress.Name), c.ids.ofDefault(w.egress.Name)
	}
	for i := range p.lans {
		l := &p.lans[i]
		l.Ingress.DefaultID, l.Egress.DefaultID = c.ids.ofDefault(l.Ingress.Name), c.ids.ofDefault(l.Egress.Name)
	}
	return p
}

// failsafe is management: as a policy. It matches only the box's own addresses and never denies.
func (c *compiler) failsafe() classify.Policy {
	p := classify.Policy{Name: "failsafe", Default: classify.Continue}
	for _, m := range c.cfg.Management {
		p.Rules = append(p.Rules, classify.Rule{
			ID: c.ids.id("failsafe/" + m.Name), Name: m.Name,
			From: c.resolve(m.From), To: c.selfPrefixes(),
			Protocol: int(m.Protocol), Ports: ranges(m.Ports), Action: classify.Accept,
		})
	}
	return p
}

// resolve turns references into prefixes. No reference at all is nil: every address. References that name nothing but
// empty sets give an empty list: no address. A set by itself is always the same slice: the classifier sweeps a list
// once, however many rules share it.
func (c *compiler) resolve(refs []config.Ref) []netip.Prefix {
	if len(refs) == 0 {
		return nil
	}
	if len(refs) == 1 && refs[0].Set != "" {
		return c.set(refs[0].Set)
	}
	if r := &refs[0]; len(refs) == 1 && r.Workload == "" && !r.Self {
		return []netip.Prefix{r.Prefix}
	}
	out := []netip.Prefix{}
	for _, r := range refs {
		switch {
		case r.Set != "":
			out = append(out, c.set(r.Set)...)
		case r.Workload != "":
			out = append(out, hostPrefixes(c.cfg.WorkloadByName(r.Workload).Addresses)...)
		case r.Self:
			out = append(out, c.selfPrefixes()...)
		default:
			out = append(out, r.Prefix)
		}
	}
	return sortedPrefixes(out)
}

func (c *compiler) selfPrefixes() []netip.Prefix { return hostPrefixes(c.self) }

// matrix is the forwarding matrix: what DESIGN.md permits by default, and forward:. Interfaces that the file does not
// name (RoleNone) keep what the kernel does between them and the physical sides, and reach no workload and no tunnel.
func (c *compiler) matrix() tc.Matrix {
	var m tc.Matrix
	for _, pair := range [][2]tc.Role{
		{tc.RoleUplink, tc.RoleWorkload}, {tc.RoleWorkload, tc.RoleUplink},
		{tc.RoleUplink, tc.RoleDownstream}, {tc.RoleDownstream, tc.RoleUplink},
		{tc.RoleWorkload, tc.RoleTunnel}, {tc.RoleDownstream, tc.RoleTunnel},
		{tc.RoleNone, tc.RoleNone},
		{tc.RoleNone, tc.RoleUplink}, {tc.RoleUplink, tc.RoleNone},
		{tc.RoleNone, tc.RoleDownstream}, {tc.RoleDownstream, tc.RoleNone},
	} {
		m[pair[0]][pair[1]] = true
	}
	for _, f := range c.cfg.Forward {
		m[tcRole(f.From)][tcRole(f.To)] = true
	}
	return m
}

func action(a config.Action) classify.Action {
	switch a {
	case config.Drop:
		return classify.Drop
	case config.ActionLimit:
		return classify.Limit
	case config.Bypass:
		return classify.Bypass
	case config.SYNCookie:
		return classify.SYNCookie
	default:
		return classify.Accept
	}
}

func fragments(f config.Fragments) classify.Fragments {
	switch f {
	case config.FragmentsAccept:
		return classify.FragAccept
	case config.FragmentsDrop:
		return classify.FragDrop
	case config.FragmentsTrack:
		return classify.FragTrack
	default:
		return classify.FragDefault
	}
}

func ranges(in []config.Range) []classify.Range {
	if len(in) == 0 {
		return nil
	}
	out := make([]classify.Range, 0, len(in))
	for _, r := range in {
		out = append(out, classify.Range(r))
	}
	return out
}

func hostPrefixes(addrs []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a.WithZone(""), a.BitLen()))
	}
	return out
}

func comparePrefixes(a, b netip.Prefix) int {
	if n := a.Addr().Compare(b.Addr()); n != 0 {
		return n
	}
	return a.Bits() - b.Bits()
}

func sortedAddrs(a []netip.Addr) []netip.Addr {
	out := slices.Clone(a)
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func compareNames(a, b string) int { return strings.Compare(a, b) }
