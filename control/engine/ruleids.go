package engine

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

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
		if plain(name) {
			out = append(append(append(out, '"'), name...), '"')
		} else {
			quoted, err := json.Marshal(name)
			if err != nil {
				return nil, err
			}
			out = append(out, quoted...)
		}
		out = append(out, ':')
		out = strconv.AppendUint(out, uint64(id), 10)
	}
	return append(out, '}'), nil
}

// plain says that JSON has a text as it is, which names in a file are.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
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

// are says whether given are the current ones. Where nothing changed they are the same map, which may be long.
func (r ruleIDs) are(given map[string]uint32) bool {
	return reflect.ValueOf(given).UnsafePointer() == reflect.ValueOf(r.Current).UnsafePointer() || maps.Equal(given, r.Current)
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
	used := make([]bool, compile.MaxRuleID+1)
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
