package compile

import (
	"fmt"

	"sluice/control/config"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

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
	c.limiters = append(c.limiters, classify.Limiter{
		Rule: id, Beyond: beyond,
		Rate: r.Limit.Rate, Burst: r.Limit.Burst, Bits: r.Limit.Bits,
		PerSource: r.Limit.PerSource, IPv4Bits: r.Limit.IPv4Prefix, IPv6Bits: r.Limit.IPv6Prefix,
	})
	return uint32(len(c.limiters) - 1)
}
