package engine

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/control/compile"
)

// ruleIDs are the ids that compilations gave to rules. An id outlives its rule by a grace: its counters are still being
// read, and a rule that comes back with a rollback counts on.
type ruleIDs struct {
	Schema  int         `json:"schema"`
	Current currentIDs  `json:"current"`
	Retired []retiredID `json:"retired,omitempty"`
}

// currentIDs are by policy/name.
type currentIDs map[string]uint32

// MarshalJSON does without the order of names, which is most of the time that 100,000 of them take.
func (c currentIDs) MarshalJSON() ([]byte, error) {
	out := make([]byte, 0, 32*len(c)+2)
	out = append(out, '{')
	for name, id := range c {
		if len(out) > 1 {
			out = append(out, ',')
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		out = append(append(out, quoted...), ':')
		out = strconv.AppendUint(out, uint64(id), 10)
	}
	return append(out, '}'), nil
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
	rt := compile.Runtime{RuleIDs: map[string]uint32{}, Retired: map[uint32]bool{}}
	for _, old := range r.Retired {
		if old.Until.After(now) {
			rt.RuleIDs[old.Name] = old.ID
			rt.Retired[old.ID] = true
		}
	}
	for name, id := range r.Current {
		rt.RuleIDs[name] = id
	}
	return rt
}

// fresh are those of given that their rules did not have, nor claim from before they were retired. Sorted.
func (r ruleIDs) fresh(given map[string]uint32) []uint32 {
	claims := map[string]uint32{}
	for _, old := range r.Retired {
		claims[old.Name] = old.ID
	}
	var out []uint32
	for name, id := range given {
		if r.Current[name] != id && claims[name] != id {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// next makes given the current ids; those that are gone retire until now + grace.
func (r ruleIDs) next(given map[string]uint32, now time.Time, grace time.Duration) ruleIDs {
	used := make(map[uint32]bool, len(given))
	for _, id := range given {
		used[id] = true
	}
	out := ruleIDs{Current: given}
	for _, old := range r.Retired {
		if !used[old.ID] && old.Until.After(now) {
			out.Retired = append(out.Retired, old)
		}
	}
	var gone []retiredID
	for name, id := range r.Current {
		if !used[id] {
			gone = append(gone, retiredID{Name: name, ID: id, Until: now.Add(grace)})
		}
	}
	slices.SortFunc(gone, func(a, b retiredID) int { return strings.Compare(a.Name, b.Name) })
	out.Retired = append(out.Retired, gone...)
	return out
}
