package compile

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"sluice/control/config"
	"sluice/xdp/classify"
)

// Cache keeps work of the last compilation for the next one: a change of one rule among 100,000 should cost that rule. It
// saves time and never changes an outcome. The zero value is empty; it may be used by several goroutines, one at a time.
type Cache struct {
	mu     sync.Mutex
	tables classify.Cache
	sums   *classify.Sums
	last   resolution
}

// resolution is what rules were resolved to, and from what.
type resolution struct {
	policies  map[string]resolvedRules
	sets      map[string]resolvedSet // those that were asked for
	ids       map[string]uint32      // Desired.RuleIDs
	self      []netip.Addr
	links     map[string]int // indexes of interfaces
	workloads []config.Workload
}

type resolvedRules struct {
	from []config.Rule
	to   []classify.Rule
	ids  idSet // of to
	loud bool  // some of to are loud, or were
}

type resolvedSet struct {
	from [][]netip.Prefix // inline and from files, then of each watched file
	to   []netip.Prefix   // sorted, distinct, not nil
}

// stale is what resolved rules may have named and that is another now.
type stale struct {
	any                    bool
	self                   bool
	sets, workloads, links map[string]bool
}

// stale compares the last compilation's surroundings of rules with those of now.
func (c *compiler) findStale() {
	last, s := &c.cache.last, &c.stale
	s.self = !slices.Equal(last.self, c.self)
	s.sets, s.workloads, s.links = map[string]bool{}, map[string]bool{}, map[string]bool{}
	for name, before := range last.sets {
		of := c.cfg.SetByName(name)
		if of == nil {
			s.sets[name] = true
			continue
		}
		from := c.setParts(of)
		if slices.EqualFunc(before.from, from, samePrefixes) {
			c.now.sets[name] = before
		} else {
			s.sets[name] = true
		}
	}
	for i := range last.workloads {
		w := &last.workloads[i]
		if now := c.cfg.WorkloadByName(w.Name); now == nil || !slices.Equal(now.Addresses, w.Addresses) {
			s.workloads[w.Name] = true
		}
	}
	for _, l := range c.facts.Host.Links {
		c.now.links[l.Name] = l.Index
	}
	for _, names := range []map[string]int{last.links, c.now.links} {
		for name := range names {
			if before, was := last.links[name]; !was || before != c.now.links[name] {
				s.links[name] = true
			}
		}
	}
	s.any = s.self || len(s.sets) > 0 || len(s.workloads) > 0 || len(s.links) > 0
}

func samePrefixes(a, b []netip.Prefix) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// touches says whether a rule names what is stale.
func (s *stale) touches(r *config.Rule) bool {
	for _, refs := range [][]config.Ref{r.From, r.To, r.NotFrom, r.NotTo} {
		for i := range refs {
			switch ref := &refs[i]; {
			case ref.Self && s.self, ref.Set != "" && s.sets[ref.Set], ref.Workload != "" && s.workloads[ref.Workload]:
				return true
			}
		}
	}
	return slices.ContainsFunc(r.Interfaces, func(name string) bool { return s.links[name] })
}

// staysResolved says whether what former was resolved to is what now is resolved to. Limiters are numbered in the order of
// their rules, so these are resolved every time.
func (c *compiler) staysResolved(former, now *config.Rule) bool {
	return sameRule(former, now) && now.Limit == nil && !(c.stale.any && c.stale.touches(now))
}

// sameRule says whether two rules say the same, wherever they stand.
func sameRule(a, b *config.Rule) bool {
	return a.Name == b.Name && a.Protocol == b.Protocol && a.Action == b.Action && a.Shadow == b.Shadow &&
		alike(a.From, b.From) && alike(a.To, b.To) && alike(a.Ports, b.Ports) && alike(a.SourcePorts, b.SourcePorts) &&
		alike(a.NotFrom, b.NotFrom) && alike(a.NotTo, b.NotTo) &&
		a.TCPFlags == b.TCPFlags && a.Fragment == b.Fragment && a.TTL == b.TTL && a.Socket == b.Socket && a.Sample == b.Sample &&
		alike(a.ICMPTypes, b.ICMPTypes) && alike(a.VLANs, b.VLANs) && alike(a.Lengths, b.Lengths) && alike(a.DSCP, b.DSCP) &&
		alike(a.Interfaces, b.Interfaces) && (a.Limit == b.Limit || a.Limit != nil && b.Limit != nil && *a.Limit == *b.Limit)
}

// alike compares lists, of which no element is the same as nil.
func alike[T comparable](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// former returns what the rules of a policy were resolved to, if they would get the ids that they have.
func (c *compiler) former(policy string) resolvedRules {
	if !c.sameIDs {
		return resolvedRules{}
	}
	return c.cache.last.policies[policy]
}

// sameMap says whether two are one.
func sameMap(a, b map[string]uint32) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// usedSets are the names of the sets that rules name.
func (c *compiler) usedSets() map[string]bool {
	left := map[string]bool{}
	for i := range c.cfg.Sets {
		left[c.cfg.Sets[i].Name] = true
	}
	used := maps.Clone(left)
	strike := func(lists ...[]config.Ref) {
		for _, refs := range lists {
			for i := range refs {
				if refs[i].Set != "" {
					delete(left, refs[i].Set)
				}
			}
		}
	}
	for i := range c.cfg.Management {
		strike(c.cfg.Management[i].From)
	}
	c.eachRule(func(r *config.Rule) (more bool) {
		strike(r.From, r.To, r.NotFrom, r.NotTo)
		return len(left) > 0
	})
	for name := range left {
		delete(used, name)
	}
	return used
}

// eachRule visits the rules of all policies of the file until f returns false.
func (c *compiler) eachRule(f func(*config.Rule) bool) {
	lists := [][]config.Rule{c.cfg.Policy.Ingress.Rules, c.cfg.Policy.Egress.Rules}
	for i := range c.cfg.Interfaces {
		lists = append(lists, c.cfg.Interfaces[i].Ingress.Rules, c.cfg.Interfaces[i].Egress.Rules)
	}
	for i := range c.cfg.Workloads {
		lists = append(lists, c.cfg.Workloads[i].Ingress.Rules, c.cfg.Workloads[i].Egress.Rules)
	}
	for _, rules := range lists {
		for i := range rules {
			if !f(&rules[i]) {
				return
			}
		}
	}
}
