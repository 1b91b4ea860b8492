package compile

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/config"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// warnOfShadows tells where a limit in shadow mode is not asked: of the shadow rules that a packet matches, the programs look at
// one that does more than count, the first. Rules that no packet matches both of are left aside.
func (c *compiler) warnOfShadows(p classify.Policy) {
	var before []*classify.Rule
	looks := 1 << 20 // then they are taken to meet
	for i := range p.Rules {
		r := &p.Rules[i]
		if !isLoud(r) {
			continue
		}
		n := slices.IndexFunc(before, func(b *classify.Rule) bool {
			looks--
			return (b.Action == classify.Limit || r.Action == classify.Limit) && (looks < 0 || mayMeet(b, r))
		})
		if n >= 0 {
			c.warn = append(c.warn, fmt.Sprintf("%s/%s: in shadow mode it neither logs nor limits what %s before it matches as well, which does so in shadow mode too",
				p.Name, r.Name, before[n].Name))
		}
		before = append(before, r)
	}
}

// isLoud says whether a rule does more than count in shadow mode.
func isLoud(r *classify.Rule) bool { return r.Shadow && (r.Sample != 0 || r.Action == classify.Limit) }

// mayMeet says whether one packet may match both rules, by protocol, ports and addresses. Long lists are taken to overlap.
func mayMeet(a, b *classify.Rule) bool {
	return (a.Protocol == classify.AnyProtocol || b.Protocol == classify.AnyProtocol || a.Protocol == b.Protocol) &&
		mayShare(a.Ports, b.Ports, portsOverlap) && mayShare(a.SourcePorts, b.SourcePorts, portsOverlap) &&
		mayShare(a.From, b.From, netip.Prefix.Overlaps) && mayShare(a.To, b.To, netip.Prefix.Overlaps)
}

// mayShare says whether an entry of one list overlaps with one of the other. Nil lists have all.
func mayShare[E any](a, b []E, overlap func(E, E) bool) bool {
	const most = 1024
	if a == nil || b == nil || len(a)*len(b) > most {
		return true
	}
	return slices.ContainsFunc(a, func(x E) bool {
		return slices.ContainsFunc(b, func(y E) bool { return overlap(x, y) })
	})
}

func portsOverlap(a, b classify.PortRange) bool { return a.First <= b.Last && b.First <= a.Last }

// limiter adds the limiter of a rule to the table, and returns its index. There is one table for all policies, in the
// order in which they are compiled: what policy.ingress needs comes first, so both objects agree on its indexes. What goes
// beyond the limit is counted by an id of its own, which is as stable as the rule's.
func (c *compiler) limiter(key string, id uint32, r *config.Rule, at place) uint32 {
	if len(c.limiters) == abi.MaxLimiters {
		if !c.crowded { // said once
			c.fail(at.pos, at.path, fmt.Sprintf("%d rules with action: limit come before it, and no more fit", abi.MaxLimiters),
				"let one rule limit per source, rather than one for each source")
		}
		c.crowded = true
		return 0
	}
	beyond := c.ids.id(key + "/beyond") // no rule's: a name has no slash
	if beyond >= abi.RuleIDs && id < abi.RuleIDs {
		c.fail(at.pos, at.path, "no rule id is left to count what goes beyond its limit",
			"remove rules, or wait until the counters of removed ones are released")
	}
	c.warnOfBurst(key, *r)
	c.limiters = append(c.limiters, classify.Limiter{
		Rule: id, Beyond: beyond,
		Rate: r.Limit.Rate, Burst: r.Limit.Burst, Bits: r.Limit.Bits,
		PerSource: r.Limit.PerSource, IPv4Bits: r.Limit.IPv4Prefix, IPv6Bits: r.Limit.IPv6Prefix,
	})
	return uint32(len(c.limiters) - 1)
}

// limitSlots is how many buckets all limits need, to a power of two, so that a limit more seldom changes it: both objects are
// loaded anew where the tables grow that they share.
func (c *compiler) limitSlots() uint32 {
	ids := classify.Limited(c.limiters)
	if ids == 0 {
		return 0
	}
	return max(minSlots, uint32(1)<<bits.Len32(ids-1))
}

// warnOfBurst tells where a packet of full size costs more than the whole burst: it never passes, however long the rule was
// idle. Packets are counted with their Ethernet header.
func (c *compiler) warnOfBurst(key string, r config.Rule) {
	const header = 14
	full, on := uint64(0), ""
	for _, name := range c.limitedLinks(key, r) {
		mtu := defaultMTU
		if link := c.link(name); link != nil {
			mtu = link.MTU
		}
		if i := slices.IndexFunc(c.cfg.Interfaces, func(i config.Interface) bool { return i.Name == name && i.MTU != 0 }); i >= 0 {
			mtu = c.cfg.Interfaces[i].MTU
		}
		if uint64(mtu+header) > full {
			full, on = uint64(mtu+header), name
		}
	}
	if r.Limit.Bits && r.Limit.Burst < full {
		c.warn = append(c.warn, fmt.Sprintf("%s: packets of full size never pass: they have %d bytes on %s, and the burst is of %d; write burst: %dB or more",
			key, full, on, r.Limit.Burst, full))
	}
}

// limitedLinks are the interfaces whose packets a rule judges, as far as the file names them.
func (c *compiler) limitedLinks(key string, r config.Rule) []string {
	if of, ok := strings.CutPrefix(key, "workload/"); ok {
		name, _, _ := strings.Cut(of, "/")
		return []string{c.cfg.WorkloadByName(name).Interface}
	}
	if of, ok := strings.CutPrefix(key, "interface/"); ok {
		name, _, _ := strings.Cut(of, "/")
		return []string{name}
	}
	if len(r.Interfaces) > 0 {
		return r.Interfaces
	}
	var out []string
	for _, i := range c.cfg.Interfaces {
		if i.Role == config.RoleUplink {
			out = append(out, i.Name)
		}
	}
	return out
}
