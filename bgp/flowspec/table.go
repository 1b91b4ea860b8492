package flowspec

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sluice/plural"
)

// Policy is what a Table takes.
type Policy struct {
	Trust Trust
	Max   int           // rules that are accepted; as many again are remembered with their refusal
	Keep  time.Duration // how long rules outlive the session that they came by
	// Blackholes makes it a table of destinations that neighbors want dropped (RFC 7999): theirs alone whom Trust names, and
	// inside of these prefixes alone.
	Blackholes bool
	Within     []netip.Prefix
}

// Announcement is a rule as a neighbor sent it.
type Announcement struct {
	Origin                    Origin
	Family                    Family
	Components                []byte // the NLRI without its length
	Communities, Communities6 []byte // the values of the attributes
	Problem                   error  // found before it came here
}

// Received is a rule as it stands now.
type Received struct {
	Name    string // the rule as text, or its octets where they could not be read
	Rule    Rule
	Actions []Action
	Origin  Origin
	Since   time.Time // when it was announced as it is
	Stale   time.Time // when its session went down; zero: it is up, and has announced it
	Refused string    // why it does not count; "" where it does
	// Unasked says of a refusal that it is as the operator wants it: nobody may ask for that, or the same rule counts already.
	Unasked bool
}

// Table holds the rules of all neighbors. A session that goes down leaves its rules stale: they count for Policy.Keep, or
// until the neighbor is back and has sent End-of-RIB without them. Time is its callers'; it is not safe for concurrent use.
type Table struct {
	policy   Policy
	entries  map[key]*entry
	arrivals uint64
	refusals uint64
	missed   map[netip.Addr]bool   // neighbors with rules that there was no room for at all
	leads    map[netip.Addr]uint32 // what the paths of a neighbor begin with
}

type key struct {
	neighbor   netip.Addr
	family     Family
	components string
}

type entry struct {
	Received
	said    Announcement
	arrival uint64 // first come, first served
	problem error  // of the rule itself
	told    string // the refusal that was last told

	judged     bool  // by the unicast routes, which said
	unfeasible error // this. A stale rule keeps it: its neighbor's routes went with the session
}

func (e *entry) key() key {
	return key{e.Origin.Neighbor, e.said.Family, string(e.said.Components)}
}

func newEntry(a Announcement, since time.Time) *entry {
	e := &entry{said: a, Received: Received{Origin: a.Origin, Since: since}, problem: a.Problem}
	var err error
	if e.Rule, err = Parse(a.Family, a.Components); err != nil {
		e.Rule.Family = a.Family
		e.problem = cmp.Or(e.problem, err)
	}
	if e.Name = e.Rule.String(); e.problem != nil {
		e.Name = fmt.Sprintf("flow%d { %x }", uint8(a.Family), a.Components)
	}
	if e.Actions, err = ParseActions(a.Communities, a.Communities6); err != nil {
		e.problem = cmp.Or(e.problem, err)
	}
	return e
}

// NewTable returns an empty table that accepts nothing.
func NewTable() *Table {
	return &Table{entries: map[key]*entry{}, missed: map[netip.Addr]bool{}, leads: map[netip.Addr]uint32{}}
}

// SetPolicy takes effect with the next Judge, also on rules that are stale.
func (t *Table) SetPolicy(p Policy) {
	for k, e := range t.entries {
		if slices.Contains(t.policy.Trust, k.neighbor) != slices.Contains(p.Trust, k.neighbor) {
			e.judged = false
		}
	}
	t.policy = p
}

// Lead says which AS the paths of a neighbor begin with, or its rules are refused, from the next Judge on; 0: any. RFC 8955 section 6 asks it of
// every external session; RFC 9117 section 4.2 leaves room for route servers.
func (t *Table) Lead(neighbor netip.Addr, as uint32) { t.leads[neighbor] = as }

// Announce takes a rule, or another version of it. The error is that of a rule for which there is no room at all; it is
// counted as a refusal.
func (t *Table) Announce(a Announcement, now time.Time) error {
	k := key{a.Origin.Neighbor, a.Family, string(a.Components)}
	e := t.entries[k]
	if e != nil && e.said.same(a) {
		e.Stale = time.Time{}
		return nil
	}
	next := newEntry(a, now)
	switch {
	case e != nil:
		next.arrival = e.arrival
	case !t.room():
		t.refusals++
		t.missed[k.neighbor] = true
		return fmt.Errorf("%s of %s: %d rules are known already, and no more are remembered", next.Name, a.Origin.Neighbor, len(t.entries))
	default:
		t.arrivals++
		next.arrival = t.arrivals
	}
	t.entries[k] = next
	return nil
}

func (a *Announcement) same(b Announcement) bool {
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	return a.Origin == b.Origin && bytes.Equal(a.Communities, b.Communities) && bytes.Equal(a.Communities6, b.Communities6) &&
		text(a.Problem) == text(b.Problem)
}

func (t *Table) room() bool { return len(t.entries) < 2*t.policy.Max }

// Missed are the neighbors whose rules were not all remembered, once there is room: these are to be offered again, or nobody ever has them.
func (t *Table) Missed() []netip.Addr {
	if !t.room() {
		return nil
	}
	return slices.SortedFunc(maps.Keys(t.missed), netip.Addr.Compare)
}

// Again begins the offers of a neighbor's rules.
func (t *Table) Again(neighbor netip.Addr) { delete(t.missed, neighbor) }

// Offer is Announce for a rule that was announced before. Where there is no room it is missed as it was, and no further refusal.
func (t *Table) Offer(a Announcement, now time.Time) {
	switch {
	case t.Has(a.Origin.Neighbor, a.Family, a.Components):
	case !t.room():
		t.missed[a.Origin.Neighbor] = true
	default:
		_ = t.Announce(a, now) // there is room
	}
}

// Has says whether a neighbor announced a rule.
func (t *Table) Has(neighbor netip.Addr, f Family, components []byte) bool {
	return t.entries[key{neighbor, f, string(components)}] != nil
}

// Withdraw forgets a rule.
func (t *Table) Withdraw(neighbor netip.Addr, f Family, components []byte) {
	delete(t.entries, key{neighbor, f, string(components)})
}

// Down begins the age of a neighbor's rules. Those that were missed come with its next session.
func (t *Table) Down(neighbor netip.Addr, now time.Time) {
	delete(t.missed, neighbor)
	for k, e := range t.entries {
		if k.neighbor == neighbor && e.Stale.IsZero() {
			e.Stale = now
		}
	}
}

// EndOfRIB forgets what the neighbor has not announced again.
func (t *Table) EndOfRIB(neighbor netip.Addr, f Family) {
	t.drop(func(k key, e *entry) bool { return k.neighbor == neighbor && k.family == f && !e.Stale.IsZero() })
}

// Forget removes all rules of a neighbor that is no longer one.
func (t *Table) Forget(neighbor netip.Addr) {
	t.drop(func(k key, _ *entry) bool { return k.neighbor == neighbor })
}

// Expire forgets the rules whose session has been down for too long, and says when the next of them will be; zero: none.
func (t *Table) Expire(now time.Time) (next time.Time) {
	t.drop(func(_ key, e *entry) bool { return !e.Stale.IsZero() && now.Sub(e.Stale) >= t.policy.Keep })
	for _, e := range t.entries {
		if end := e.Stale.Add(t.policy.Keep); !e.Stale.IsZero() && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return next
}

func (t *Table) drop(which func(key, *entry) bool) {
	for k, e := range t.entries {
		if which(k, e) {
			delete(t.entries, k)
		}
	}
}

// Refusals counts rules that were refused, each once for each reason.
func (t *Table) Refusals() uint64 { return t.refusals }

// Doubtful reports whether a rule's validity depends on unicast routes.
func (t *Table) Doubtful() bool {
	for k := range t.entries {
		if !slices.Contains(t.policy.Trust, k.neighbor) {
			return !t.policy.Blackholes
		}
	}
	return false
}

// feasible asks the routes, of a rule whose session is down once at most.
func (t *Table) feasible(e *entry, rib RIB) error {
	switch as := t.leads[e.Origin.Neighbor]; {
	case as != 0 && e.Origin.FirstAS != as:
		return unfeasible("its AS path does not begin with %d, its neighbor's AS (enforce_first_as)", as)
	case t.policy.Blackholes:
		return validateBlackhole(e.Rule, e.Origin, t.policy.Trust, t.policy.Within)
	case e.Stale.IsZero() || !e.judged:
		e.judged, e.unfeasible = true, Validate(e.Rule, e.Origin, rib, t.policy.Trust)
	}
	return e.unfeasible
}

func (t *Table) full() error {
	if t.policy.Blackholes {
		return fmt.Errorf("%s accepted already (blackhole.max_prefixes)", plural.Of(t.policy.Max, "blackhole is", "blackholes are"))
	}
	return fmt.Errorf("%s accepted already (max_rules)", plural.Of(t.policy.Max, "rule is", "rules are"))
}

var errSame = unasked{errors.New("another neighbor announced the same rule before")}

// Judge returns all rules in the order of their evaluation, and those of them whose refusal is news. It asks in the order
// of arrival, so that a rule which is accepted stays so while others come.
func (t *Table) Judge(rib RIB) (all, news []Received) {
	list := t.byArrival()
	taken := map[key]bool{}
	for _, e := range list {
		same := key{family: e.said.Family, components: string(e.said.Components)}
		err := e.problem
		if err == nil {
			err = t.feasible(e, rib)
		}
		switch {
		case err != nil:
		case taken[same]:
			err = errSame
		case len(taken) >= t.policy.Max:
			err = t.full()
		default:
			taken[same] = true
		}
		e.Refused, e.Unasked = "", errors.As(err, new(unasked))
		if err != nil {
			e.Refused = err.Error()
		}
		if e.Refused != e.told {
			if e.told = e.Refused; e.told != "" {
				t.refusals++
				news = append(news, e.Received)
			}
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Or(Compare(a.Rule, b.Rule), cmp.Compare(a.arrival, b.arrival)) })
	for _, e := range list {
		all = append(all, e.Received)
	}
	return all, news
}
