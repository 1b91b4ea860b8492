package compile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"sluice/control/config"
	"sluice/plural"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// budget asks whether everything fits into the maps and tables, so that `sluice check` says it and apply never finds
// out half-way.
func (c *compiler) budget(d *Desired) {
	if n := len(c.present) + len(c.rules.lans); n > abi.MaxWorkloads && len(c.present) > 0 {
		w := c.present[len(c.present)-1]
		what := "workloads"
		if len(c.rules.lans) > 0 {
			what += " and LANs with policies"
		}
		c.fail(w.Pos, "workloads", fmt.Sprintf("%d %s are here, one box holds %d", n, what, abi.MaxWorkloads), "move some to another box")
		return // their policies do not fit either
	}
	if n := len(c.self); n > abi.MaxSelf {
		c.fail(c.cfg.Policy.Ingress.Pos, "interfaces", fmt.Sprintf("the box has %d own addresses, %d fit", n, abi.MaxSelf),
			"announce a prefix and give its addresses to workloads, rather than adding them to interfaces")
	}
	if n := len(d.XDP.Interfaces); n >= abi.InterfaceSlots { // slot 0 is nobody's
		c.fail(c.cfg.Interfaces[0].Pos, "interfaces", fmt.Sprintf("%d uplinks have XDP, one box holds %d", n, abi.InterfaceSlots-1), "write xdp: {mode: none} at some: tcx judges there")
	}
	if c.ids.next > abi.RuleIDs {
		return // said already; the tables would say it again in other words
	}
	c.failsafeBudget(d.XDP.Generation.Failsafe)
	var group errgroup.Group
	ingress, paths := d.XDP.Generation, d.TC.Generation // copies: compileTables writes into d
	group.Go(func() error {
		sums := c.cache.sums.Next()
		d.XDP.Digest, d.TC.Digest = ingress.DigestBy(sums), paths.DigestBy(sums)
		c.cache.sums = sums
		return nil
	})
	c.compileTables(d)
	_ = group.Wait() // it cannot fail
}

// compileTables compiles the policies of both objects once, for they may hold a million prefixes: those of XDP are the
// first of tc's, under the same indexes, so that tc's tables serve both. Loading uses the same tables.
func (c *compiler) compileTables(d *Desired) {
	tables, err := c.cache.tables.Compile(d.TC.Generation.Policies())
	if err == nil {
		d.TC.Generation.Tables, d.XDP.Generation.Tables = tables, tables
		return
	}
	at := place{c.cfg.Policy.Ingress.Pos, "policy"}
	var over *classify.BudgetError
	if errors.As(err, &over) {
		if of, known := c.placeOf(over.Rule); known {
			at = of
		}
	}
	c.fail(at.pos, at.path, err.Error(), "")
}

// placeOf finds a rule by policy/name.
func (c *compiler) placeOf(key string) (place, bool) {
	for n := range c.cfg.Management {
		if m := &c.cfg.Management[n]; key == "failsafe/"+m.Name {
			return place{m.Pos, fmt.Sprintf("management.accept[%d]", n)}, true
		}
	}
	search := func(policy, path string, list []config.Rule) (place, bool) {
		name, of := strings.CutPrefix(key, policy+"/")
		n := slices.IndexFunc(list, func(r config.Rule) bool { return of && r.Name == name })
		if n < 0 {
			return place{}, false
		}
		return place{list[n].Pos, fmt.Sprintf("%s.rules[%d]", path, n)}, true
	}
	if at, ok := search("ingress", "policy.ingress", c.cfg.Policy.Ingress.Rules); ok {
		return at, true
	}
	if at, ok := search("egress", "policy.egress", c.cfg.Policy.Egress.Rules); ok {
		return at, true
	}
	for n := range c.cfg.Interfaces {
		i := &c.cfg.Interfaces[n]
		if at, ok := search("interface/"+i.Name+"/ingress", fmt.Sprintf("interfaces[%d].ingress", n), i.Ingress.Rules); ok {
			return at, true
		}
		if at, ok := search("interface/"+i.Name+"/egress", fmt.Sprintf("interfaces[%d].egress", n), i.Egress.Rules); ok {
			return at, true
		}
	}
	for n := range c.cfg.Workloads {
		w := &c.cfg.Workloads[n]
		if at, ok := search("workload/"+w.Name+"/ingress", c.workloadPath(n)+".ingress", w.Ingress.Rules); ok {
			return at, true
		}
		if at, ok := search("workload/"+w.Name+"/egress", c.workloadPath(n)+".egress", w.Egress.Rules); ok {
			return at, true
		}
	}
	return place{}, false
}

// failsafeBudget counts what the root, which has no classifier, compares one by one: pairs of prefix and port range.
func (c *compiler) failsafeBudget(p classify.Policy) {
	entries := 0
	for n, r := range p.Rules {
		prefixes := len(r.From)
		if r.From == nil {
			prefixes = 1
		}
		own := prefixes * max(len(r.Ports), 1)
		if entries += own; entries > abi.MaxFailsafe {
			c.fail(c.cfg.Management[n].Pos, fmt.Sprintf("management.accept[%d]", n),
				fmt.Sprintf("the rule needs %s of prefix and port range, %d of %d are left", plural.Of(own, "entry", "entries"), abi.MaxFailsafe-entries+own, abi.MaxFailsafe),
				"merge prefixes or ports: management: is for the few who run the box")
			return
		}
	}
}
