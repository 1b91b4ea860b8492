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

// Compile is the function Compile. Rules and lists of prefixes must not be changed afterwards. Where little changed since
// the last compilation, the tables are those of then with what is another now in its place: equal in every verdict,
// perhaps with other numbers inside.
func (k *Cache) Compile(policies []Policy) (*Tables, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	last := k.last
	k.last = nil // which is being changed, and useless unless that goes well
	if last != nil {
		if tables := last.advance(policies); tables != nil {
			k.last = last
			return tables, nil
		}
	}
	last = nil // its memory can go
	if err := validate(policies); err != nil {
		return nil, err
	}
	c := &compiler{policies: policies, tables: new(Tables)}
	c.gather()
	if err := c.sweep(); err != nil {
		return nil, err
	}
	c.level, c.total = place(c.rules, c.few)
	if err := c.addRules(); err != nil {
		return nil, err
	}
	sorted := c.sort()
	var group errgroup.Group
	group.Go(func() error { return c.addLeaves(sorted) })
	c.addPrefixes(sorted.keys)
	if err := group.Wait(); err != nil {
		return nil, err
	}
	c.measure()
	k.last = c
	return c.tables, nil
}

// compiler is the state of a compilation, stage by stage, and what the next one begins with.
type compiler struct {
	policies []Policy
	src, dst *swept
	rules    []placed // all, in order of priority
	few      []bool   // by policy: its rules are looked through
	level    budgets  // that all rules were placed with
	total    int      // places that they take
	tables   *Tables
	fresh    sizes // of the tables when nothing of them was of an earlier compilation
	filled   int   // slots of buckets that are in use, or were
	dead     int   // those of them that are empty now
	steps    int   // changes since all was compiled
}

// sides are source and destination.
func (c *compiler) sides() [2]*swept { return [2]*swept{c.src, c.dst} }

// gather collects the rules.
func (c *compiler) gather() {
	n := 0
	for i := range c.policies {
		n += len(c.policies[i].Rules)
	}
	c.rules = make([]placed, 0, n)
	for i := range c.policies {
		p := &c.policies[i]
		for j := range p.Rules {
			c.rules = append(c.rules, newPlaced(i, p, &p.Rules[j]))
		}
	}
	c.few = make([]bool, len(c.policies))
}

// sweep makes the classes, and tells the rules theirs. The two sides know nothing of each other, and each may be long.
func (c *compiler) sweep() error {
	var now [2]*swept
	var group errgroup.Group
	for i := range now {
		group.Go(func() (err error) {
			s := newSide()
			s.gather(c.rules, i)
			if now[i], err = s.sweep(); err == nil {
				now[i].classify(c.rules, i)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	c.src, c.dst = now[0], now[1]
	for i := range c.rules {
		c.judgeFamilies(&c.rules[i])
	}
	return nil
}

// judgeFamilies finds out whether a rule has addresses of one family on both sides.
func (c *compiler) judgeFamilies(r *placed) {
	r.never = r.empty || c.src.familiesIn(r.lists[0])&c.dst.familiesIn(r.lists[1]) == 0
}

// addRules lays the entries of all policies into the rule space.
func (c *compiler) addRules() error {
	c.addPolicies()
	needs := 0
	for i := range c.rules {
		needs += c.rules[i].entries(c.rules[i].manner)
	}
	if needs > abi.MaxRules {
		return c.tooMany(needs)
	}
	c.tables.entries = needs
	size := c.number(needs)
	c.tables.Rules, c.tables.Verdicts = make([]abi.Rule, size), make([]abi.Verdict, size)
	for i := range c.rules {
		c.write(&c.rules[i])
	}
	return nil
}

// addPolicies writes what policies say beside their rules.
func (c *compiler) addPolicies() {
	for i := range c.policies {
		p := &c.policies[i]
		c.tables.Policies = append(c.tables.Policies, abi.Policy{})
		p.head(&c.tables.Policies[i])
	}
}

// write puts the entries of a rule where its numbers are.
func (c *compiler) write(r *placed) {
	if r.never {
		return
	}
	at := c.tables.Rules[r.first:r.first:r.end]
	at = r.expand(at, c.policies[r.policy].Default != Continue)
	for n := range at {
		e := &at[n]
		v := abi.Verdict{ID: e.ID, Action: e.Action, Argument: r.rule.Argument, Sample: r.rule.Sample}
		if isPlain(v) {
			e.Flags |= abi.RulePlain
		}
		c.tables.Verdicts[r.first+uint32(n)] = v
	}
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
	for i := range c.rules {
		r := &c.rules[i]
		if r.first == r.end {
			continue
		}
		c.plan(r).Keys |= r.manner.key()
		r.eachBucket(func(key bucketKey) { sorted.add(key, r.first, r.end) })
	}
	return sorted
}

// plan is where searches for a rule begin.
func (c *compiler) plan(r *placed) *abi.SearchPlan {
	if r.rule.Shadow {
		return &c.tables.Policies[r.policy].Shadow
	}
	return &c.tables.Policies[r.policy].Act
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
		if key.src == abi.NoClass && key.dst == abi.NoClass {
			c.setEverywhere(key, leaf)
			continue
		}
		slots = append(slots, c.slot(key, leaf, entries))
	}
	c.tables.Buckets, c.tables.probes = newBuckets(slots)
	c.tables.Leaves, c.tables.walk, c.tables.runs = l.words, l.walk, l.runs
	return nil
}

func (c *compiler) setEverywhere(key bucketKey, leaf uint32) {
	policy := &c.tables.Policies[key.kind&^abi.BucketShadow]
	if key.kind&abi.BucketShadow != 0 {
		policy.Shadow.Everywhere = leaf
	} else {
		policy.Act.Everywhere = leaf
	}
}

// explain turns a list that is too long into words of the file.
func (c *compiler) explain(err error) error {
	var long tooLong
	if !errors.As(err, &long) {
		return err
	}
	owner := slices.IndexFunc(c.rules, func(r placed) bool { return r.first <= long.entry && long.entry < r.end })
	return &BudgetError{Rule: c.rules[owner].name(), What: "places in one list of rules to compare", Needs: 1, Free: 0,
		Total: long.needs, Budget: abi.MaxWalk,
		Advice: "too many rules differ in nothing that is looked up: protocol, ports and addresses that do not nest; join them, or put the widest first"}
}

// addPrefixes writes the prefix tables, now that it is known which classes have buckets.
func (c *compiler) addPrefixes(buckets []bucketKey) {
	for _, s := range c.sides() {
		s.flags, s.wide = make([]uint32, len(s.classes)), make([]bool, len(s.classes))
	}
	for _, key := range buckets {
		c.flag(key, func(*swept, uint32) {})
	}
	var group errgroup.Group
	for i, s := range c.sides() {
		group.Go(func() error {
			values := s.values()
			for family := range s.tables {
				s.tables[family] = newPrefixTable(s.space[family], family == 1, values)
				c.tables.Prefixes[tableOf(i, family)] = s.tables[family]
			}
			return nil
		})
	}
	c.addUp()
	_ = group.Wait() // none can fail
}

// flag marks the classes of a bucket as having one, and reports those that had none of its kind.
func (c *compiler) flag(key bucketKey, changed func(s *swept, class uint32)) {
	sides := c.sides()
	for i, class := range [2]uint32{key.src, key.dst} {
		bit, s := uint32(abi.ClassKeyed), sides[i]
		switch {
		case class == abi.NoClass:
			continue
		case key.kind&abi.BucketWide != 0:
			s.wide[class] = true
			continue
		case key.src != abi.NoClass && key.dst != abi.NoClass:
			bit = abi.ClassPaired
		}
		if s.flags[class]&bit == 0 {
			s.flags[class] |= bit
			changed(s, class)
		}
	}
}

// addUp writes the ways up among classes.
func (c *compiler) addUp() {
	c.tables.ancestors, c.tables.classes, c.tables.prefixes = 0, 0, 0
	for i, s := range c.sides() {
		var most int
		c.tables.Up[i], most = s.ancestors(s.wide)
		c.tables.ancestors = max(c.tables.ancestors, most)
		c.tables.classes += len(s.classes)
		c.tables.prefixes += s.prefixes
	}
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
	errs := validateHeads(policies)
	for i := range policies {
		p := &policies[i]
		for j := range p.Rules {
			for _, problem := range problems(&p.Rules[j]) {
				errs = append(errs, fmt.Errorf("rule %s/%s: %s", p.Name, p.Rules[j].Name, problem))
			}
		}
	}
	return errors.Join(errs...)
}

// validateHeads looks at all but the rules.
func validateHeads(policies []Policy) (errs []error) {
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
	}
	return errs
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
