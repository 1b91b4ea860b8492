package host

import (
	"fmt"
	"slices"
	"strings"

	"sluice/plural"
)

// ruleset is what one kind of netfilter rules is made of: chains, of which some hang at hooks and jump to others.
type ruleset map[string]*ruleChain // by "family table chain"

type ruleChain struct {
	hook      string // prerouting, input, forward, output, postrouting, ingress, egress; "": only jumped to
	kind      string // filter, nat, route, mangle, raw, security; of nftables the chain's type
	drops     bool   // what no rule decides
	rules     int
	conntrack int // rules that ask connection tracking
	jumps     []string
}

// missedChain is one at a hook that redirected packets do not come to.
type missedChain struct {
	name string
	ruleChain
	reached int // rules of the chains that it jumps to
}

func (r ruleset) at(name string) *ruleChain {
	if r[name] == nil {
		r[name] = &ruleChain{}
	}
	return r[name]
}

func (r ruleset) total() (n int) {
	for _, c := range r {
		n += c.rules
	}
	return n
}

// passedBy are the hooks between a redirect at tcx ingress and the wire, or the workload.
var passedBy = []string{"ingress", "prerouting", "forward", "postrouting", "egress"}

// missed are the chains that have rules, or drop without any, sorted by name.
func (r ruleset) missed() []missedChain {
	var out []missedChain
	for name, c := range r {
		if !slices.Contains(passedBy, c.hook) {
			continue
		}
		m := missedChain{name: name, ruleChain: *c}
		seen := map[string]bool{name: true}
		for queue := c.jumps; len(queue) > 0; queue = queue[1:] {
			if to := r[queue[0]]; to != nil && !seen[queue[0]] {
				seen[queue[0]] = true
				m.reached += to.rules
				m.conntrack += to.conntrack
				queue = append(slices.Clone(queue), to.jumps...)
			}
		}
		if m.rules+m.reached > 0 || m.drops {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b missedChain) int { return strings.Compare(a.name, b.name) })
	return out
}

func (m missedChain) detail() string {
	text := fmt.Sprintf("%s at %s: %s", m.kind, m.hook, plural.Of(m.rules, "rule", "rules"))
	if m.reached > 0 {
		text += fmt.Sprintf(" and %d in chains that it jumps to", m.reached)
	}
	if m.drops {
		text += ", drops by default"
	}
	if m.conntrack > 0 {
		text += fmt.Sprintf("; %d of them ask conntrack", m.conntrack)
	}
	return text
}

func (m missedChain) cost() string {
	var text string
	switch {
	case m.kind == "nat" && m.hook == "postrouting":
		text = "redirected packets leave without this source NAT"
	case m.kind == "nat":
		text = "connections that this destination NAT hands to workloads are redirected untranslated, or not at all"
	case m.hook == "forward" && m.kind != "mangle":
		text = "redirected packets are not filtered here"
	default:
		text = "redirected packets get none of the marks, clamping or exemptions made here"
	}
	if m.conntrack > 0 {
		text += ", and the kernel's conntrack sees no redirected packet"
	}
	return text
}

func (m missedChain) fix() string {
	const stack = "`path: stack` for workloads whose packets must meet it"
	switch {
	case m.kind == "nat" && m.hook == "postrouting":
		return "`snat:` of the workload, or " + stack
	case m.hook == "forward" && m.kind != "nat":
		return "write what it does as ingress: and egress: of the workload, or " + stack
	}
	return stack
}
