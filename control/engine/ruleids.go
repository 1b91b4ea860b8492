package engine

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"sluice/control/compile"
)

// ruleIDs are the ids that compilations gave to rules. An id outlives its rule by a grace: its counters are still being
// read, and a rule that comes back with a rollback counts on.
type ruleIDs struct {
	Schema  int               `json:"schema"`
	Base    string            `json:"base"`    // of the file; see idJournal
	Current map[string]uint32 `json:"current"` // by policy/name
	Retired []retiredID       `json:"retired,omitempty"`
}

type retiredID struct {
	Name  string    `json:"name"`
	ID    uint32    `json:"id"`
	Until time.Time `json:"until"` // wall clock: it must mean something after a reboot
}

// plausible is false for ids that no compilation gave: with them nothing would ever compile again.
func (r ruleIDs) plausible() bool {
	seen := map[uint32]bool{0: true}
	fresh := func(id uint32) bool {
		ok := !seen[id] && id <= compile.MaxRuleID
		seen[id] = true
		return ok
	}
	for _, id := range r.Current {
		if !fresh(id) {
			return false
		}
	}
	for _, old := range r.Retired {
		if !fresh(old.ID) {
			return false
		}
	}
	return true
}

// runtime is what the next compilation is given. A retired name keeps its claim to its id, and nobody else gets it.
func (r ruleIDs) runtime(now time.Time) compile.Runtime {
	rt := compile.Runtime{RuleIDs: r.Current, Retired: map[uint32]bool{}, Claims: map[string]uint32{}}
	for _, old := range r.Retired {
		if old.Until.After(now) {
			rt.Claims[old.Name] = old.ID
			rt.Retired[old.ID] = true
		}
	}
	return rt
}

// idChange is what a compilation changes about rule ids: the line of the journal.
type idChange struct {
	Base  string            `json:"base"` // see idJournal
	Now   time.Time         `json:"now"`
	Until time.Time         `json:"until"`
	Given map[string]uint32 `json:"given,omitempty"` // by policy/name
	Gone  []string          `json:"gone,omitempty"`  // sorted; their ids retire until then
}

func (c *idChange) empty() bool { return len(c.Given) == 0 && len(c.Gone) == 0 }

// change says how given, the ids by name of a compilation, differ from the current ones.
func (r ruleIDs) change(given map[string]uint32, now time.Time, grace time.Duration) idChange {
	c := idChange{Now: now, Until: now.Add(grace), Given: map[string]uint32{}}
	if sameMap(given, r.Current) {
		return c
	}
	// By id: to ask a map for each of 100,000 names takes five times as long.
	var before []string
	for name, id := range r.Current {
		if int(id) >= len(before) {
			before = append(before, make([]string, int(id)+1)...)
		}
		before[id] = name
	}
	kept := 0
	for name, id := range given {
		if int(id) < len(before) && before[id] == name {
			before[id] = ""
			kept++
		} else {
			c.Given[name] = id
		}
	}
	if kept == len(r.Current) {
		return c
	}
	for _, name := range before {
		if name != "" {
			c.Gone = append(c.Gone, name)
		}
	}
	slices.Sort(c.Gone)
	return c
}

// sameMap says whether two maps are one. The compiler returns the ids that it was given where none changed.
func sameMap(a, b map[string]uint32) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// fresh are the ids of a change that their rules did not have, nor claim from before they were retired. Sorted.
func (r ruleIDs) fresh(c idChange) []uint32 {
	claims := map[string]uint32{}
	for _, old := range r.Retired {
		claims[old.Name] = old.ID
	}
	var out []uint32
	for name, id := range c.Given {
		if claims[name] != id {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// next makes given, to which c leads, the current ids; those that are gone retire.
func (r ruleIDs) next(given map[string]uint32, c idChange) ruleIDs {
	used := make(map[uint32]bool, len(c.Given)) // the others were current before: nobody retired from them
	for _, id := range c.Given {
		used[id] = true
	}
	out := ruleIDs{Current: given}
	for _, old := range r.Retired {
		if !used[old.ID] && old.Until.After(c.Now) {
			out.Retired = append(out.Retired, old)
		}
	}
	for _, name := range c.Gone {
		if id := r.Current[name]; !used[id] {
			out.Retired = append(out.Retired, retiredID{Name: name, ID: id, Until: c.Until})
		}
	}
	return out
}

// replay is next for who has no more than the change. Current is written.
func (r ruleIDs) replay(c idChange) ruleIDs {
	out := r.next(r.Current, c)
	if out.Current == nil {
		out.Current = map[string]uint32{}
	}
	for _, name := range c.Gone {
		delete(out.Current, name)
	}
	maps.Copy(out.Current, c.Given)
	return out
}
