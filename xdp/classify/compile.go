package classify

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sync/errgroup"

	"sluice/xdp/abi"
)

// BudgetError says that a rule set needs more than the tables hold.
type BudgetError struct {
	Rule   string // "policy/name" of the first rule that does not fit
	What   string // what it needed too much of: "entries" or "address classes"
	Needs  int    // by that rule; for address classes, by all rules up to the point of giving up
	Free   int    // what was left for it
	Total  int    // needed by all rules; 0: not known
	Budget int
	Advice string // what to do
}

func (e *BudgetError) Error() string {
	total := ""
	if e.Total > 0 {
		total = fmt.Sprintf(" (all rules together: %d)", e.Total)
	}
	return fmt.Sprintf("rule %s needs %d %s, %d of %d are left%s: %s",
		e.Rule, e.Needs, e.What, e.Free, e.Budget, total, e.Advice)
}

// Compile turns policies into tables. The index in the slice becomes the index of the policies map (enum
// policy_index); policies may be empty. Rules that can never match get no entry. It fails with a *BudgetError, or with
// every invalid rule at once. Equal input gives equal output.
func Compile(policies []Policy) (*Tables, error) { return new(Cache).Compile(policies) }

// Compile is the function Compile. Lists of prefixes must not be changed afterwards.
func (k *Cache) Compile(policies []Policy) (*Tables, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := validate(policies); err != nil {
		return nil, err
	}
	c := &compiler{}
	c.gather(policies)
	if err := c.sweep(k.last); err != nil {
		return nil, err
	}
	k.last = [2]*swept{c.src, c.dst}
	place(c.rules, len(policies))
	if err := c.addRules(policies); err != nil {
		return nil, err
	}
	sorted := c.sort()
	var group errgroup.Group
	group.Go(func() error { return c.addLeaves(sorted) })
	c.addPrefixes(sorted.keys)
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return &c.tables, nil
}

// compiler is the state of one compilation, stage by stage.
type compiler struct {
	src, dst *swept
	rules    []placed // that can match, in order of priority
	owner    []int32  // of each entry: index of its rule
	tables   Tables
}

// gather collects the rules that can match.
func (c *compiler) gather(policies []Policy) {
	for i := range policies {
		p := &policies[i]
		for j := range p.Rules {
			if r := &p.Rules[j]; neverMatches(r) == "" {
				c.rules = append(c.rules, placed{rule: r, policy: i, in: p, ports: portEntries(r)})
			}
		}
	}
}

// sweep makes the classes, and tells the rules theirs. The two sides know nothing of each other, and each may be long.
func (c *compiler) sweep(last [2]*swept) error {
	var now [2]*swept
	var group errgroup.Group
	for i := range now {
		group.Go(func() (err error) {
			s := newSide()
			s.gather(c.rules, i)
			if now[i], err = s.sweep(last[i]); err == nil {
				now[i].classify(c.rules, i)
			}
			return err
		})
	}
	err := group.Wait()
	c.src, c.dst = now[0], now[1]
	return err
}

// addRules lays the entries of all policies into the rule space.
func (c *compiler) addRules(policies []Policy) error {
	for i := range policies {
		c.tables.Policies = append(c.tables.Policies,
			abi.Policy{DefaultAction: uint8(policies[i].Default), DefaultID: policies[i].DefaultID, Fragments: uint8(policies[i].Fragments)})
	}
	needs := 0
	for i := range c.rules {
		needs += c.rules[i].entries(c.rules[i].manner)
	}
	if needs > abi.MaxRules {
		return c.tooMany(needs)
	}
	c.tables.Rules, c.tables.Verdicts, c.owner = make([]abi.Rule, 0, needs), make([]abi.Verdict, 0, needs), make([]int32, 0, needs)
	for i := range c.rules {
		r := &c.rules[i]
		c.tables.Rules = r.expand(c.tables.Rules, policies[r.policy].Default != Continue)
		for n := len(c.owner); n < len(c.tables.Rules); n++ {
			e := &c.tables.Rules[n]
			v := abi.Verdict{ID: e.ID, Action: e.Action, Argument: r.rule.Argument, Sample: r.rule.Sample}
			if isPlain(v) {
				e.Flags |= abi.RulePlain
			}
			c.tables.Verdicts = append(c.tables.Verdicts, v)
			c.owner = append(c.owner, int32(i))
		}
	}
	return nil
}

// tooMany names the rule whose entries do not fit any more.
func (c *compiler) tooMany(total int) error {
	free := abi.MaxRules
	for i := range c.rules {
		r := &c.rules[i]
		needs := r.entries(r.manner)
		if needs > free {
			return &BudgetError{Rule: r.name(), What: "entries", Needs: needs, Free: free, Total: total, Budget: abi.MaxRules, Advice: entryAdvice(r)}
		}
		free -= needs
	}
	return nil // not reached: total is more than there is
}

// isPlain says that a verdict is no more than an id and one of the two plain actions, whatever else verdicts may say.
func isPlain(v abi.Verdict) bool {
	return v == abi.Verdict{ID: v.ID, Action: v.Action} && (v.Action == uint8(Accept) || v.Action == uint8(Drop))
}

// sort sorts the entries by the buckets that they go into.
func (c *compiler) sort() *sorter {
	places := 0
	for i := range c.rules {
		places += c.rules[i].places(c.rules[i].manner)
	}
	sorted := newSorter(places)
	entry := uint32(0)
	for i := range c.rules {
		r := &c.rules[i]
		plan := &c.tables.Policies[r.policy].Act
		kind := uint32(r.policy)
		if r.rule.Shadow {
			plan, kind = &c.tables.Policies[r.policy].Shadow, kind|abi.BucketShadow
		}
		end := entry
		for int(end) < len(c.owner) && c.owner[end] == int32(i) {
			end++
		}
		if entry == end {
			continue
		}
		plan.Keys |= r.manner.key()
		r.eachKey(func(wide, src, dst uint32) { sorted.add(bucketKey{kind | wide, src, dst}, entry, end) })
		entry = end
	}
	return sorted
}

// addLeaves makes leaves of sorted entries, and buckets that lead to them.
func (c *compiler) addLeaves(sorted *sorter) error {
	l := newLeaves(c.tables.Rules)
	slots := make([]abi.BucketSlot, 0, len(sorted.keys))
	var entries []uint32
	for n, key := range sorted.keys {
		entries = sorted.entries(entries[:0], n)
		leaf, err := l.leaf(entries)
		if err != nil {
			return c.explain(err)
		}
		if key.src != abi.NoClass || key.dst != abi.NoClass {
			slots = append(slots, c.slot(key, leaf, entries))
			continue
		}
		policy := &c.tables.Policies[key.kind&^abi.BucketShadow]
		if key.kind&abi.BucketShadow != 0 {
			policy.Shadow.Everywhere = leaf
		} else {
			policy.Act.Everywhere = leaf
		}
	}
	c.tables.Buckets, c.tables.probes = newBuckets(slots)
	c.tables.Leaves, c.tables.walk, c.tables.runs = l.words, l.walk, l.runs
	return nil
}

// explain turns a list that is too long into words of the file.
func (c *compiler) explain(err error) error {
	var long tooLong
	if !errors.As(err, &long) {
		return err
	}
	return &BudgetError{Rule: c.rules[c.owner[long.entry]].name(), What: "places in one list of rules to compare", Needs: 1, Free: 0,
		Total: long.needs, Budget: abi.MaxWalk,
		Advice: "too many rules differ in nothing that is looked up: protocol, ports and addresses that do not nest; join them, or put the widest first"}
}

// addPrefixes writes the prefix tables, now that it is known which classes have buckets.
func (c *compiler) addPrefixes(buckets []bucketKey) {
	flags := [2][]uint32{make([]uint32, len(c.src.classes)), make([]uint32, len(c.dst.classes))}
	wide := [2][]bool{make([]bool, len(c.src.classes)), make([]bool, len(c.dst.classes))}
	for _, key := range buckets {
		for i, class := range [2]uint32{key.src, key.dst} {
			switch {
			case class == abi.NoClass:
			case key.kind&abi.BucketWide != 0:
				wide[i][class] = true
			case key.src != abi.NoClass && key.dst != abi.NoClass:
				flags[i][class] |= abi.ClassPaired
			default:
				flags[i][class] |= abi.ClassKeyed
			}
		}
	}
	var group errgroup.Group
	for i, s := range [2]*swept{c.src, c.dst} {
		group.Go(func() error {
			for family, t := range s.prefixTables(flags[i]) {
				c.tables.Prefixes[tableOf(i, family)] = t
			}
			return nil
		})
		var most int
		c.tables.Up[i], most = s.ancestors(wide[i])
		c.tables.ancestors = max(c.tables.ancestors, most)
		c.tables.classes += len(s.classes)
		c.tables.prefixes += s.prefixes
	}
	_ = group.Wait() // none can fail
}

// mergePorts returns the same ports as sorted ranges that neither overlap nor touch.
func mergePorts(ranges []PortRange) []PortRange {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var out []PortRange
	for _, r := range sorted {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// validate refuses what has no meaning in the tables. The file's own errors are config's; these are its safety net.
func validate(policies []Policy) error {
	var errs []error
	if len(policies) > abi.MaxPolicies {
		errs = append(errs, fmt.Errorf("%d policies, the tables hold %d: remove workloads", len(policies), abi.MaxPolicies))
	}
	for i := range policies {
		p := &policies[i]
		if p.Default > Drop || p.Fragments > FragTrack {
			errs = append(errs, fmt.Errorf("policy %s: default %d, fragments %d: no such action", p.Name, p.Default, p.Fragments))
		}
		if p.DefaultID >= abi.RuleIDs {
			errs = append(errs, fmt.Errorf("policy %s: id %d of its default is not in 1-%d", p.Name, p.DefaultID, abi.RuleIDs-1))
		}
		for j := range p.Rules {
			for _, problem := range problems(&p.Rules[j]) {
				errs = append(errs, fmt.Errorf("rule %s/%s: %s", p.Name, p.Rules[j].Name, problem))
			}
		}
	}
	return errors.Join(errs...)
}

func problems(r *Rule) []string {
	var out []string
	if r.ID == 0 || r.ID >= abi.RuleIDs {
		out = append(out, fmt.Sprintf("id %d is not in 1-%d", r.ID, abi.RuleIDs-1))
	}
	if r.Protocol < AnyProtocol || r.Protocol > 255 {
		out = append(out, fmt.Sprintf("protocol %d is not in 0-255", r.Protocol))
	}
	if (r.Action == Continue || r.Action > Bypass) && !r.Shadow {
		out = append(out, fmt.Sprintf("action %d is none of a rule", r.Action))
	}
	for _, ranges := range [][]PortRange{r.Ports, r.SourcePorts} {
		for _, pr := range ranges {
			if pr.First > pr.Last {
				out = append(out, fmt.Sprintf("port range %d-%d is upside down", pr.First, pr.Last))
			}
		}
	}
	out = append(out, restProblems(r)...)
	for _, prefixes := range [][]netip.Prefix{r.From, r.NotFrom, r.To, r.NotTo} {
		for _, p := range prefixes {
			if !p.IsValid() {
				out = append(out, "a prefix is invalid (the zero netip.Prefix, or too long for its family)")
			}
		}
	}
	return out
}
