package slots

import (
	"fmt"
	"slices"
	"strings"
)

// Status is what stands on the ESP, and what becomes of it.
type Status struct {
	Running string `json:"running"`        // the version
	Next    string `json:"next,omitempty"` // what a reboot starts
	Trial   bool   `json:"trial"`          // this boot is a try, and not decided
	Slots   []Slot `json:"slots"`          // in the boot loader's order
	// Forced is an EFI variable that decides before the order does, with its value.
	Forced string `json:"forced,omitempty"`
	Note   string `json:"note,omitempty"` // what is odd
}

// Slot is one image.
type Slot struct {
	Version   string    `json:"version"`
	File      string    `json:"file"`
	Bytes     int64     `json:"bytes"`
	Running   bool      `json:"running"`
	Next      bool      `json:"next"`
	State     SlotState `json:"state"`
	TriesLeft *int      `json:"tries_left,omitempty"` // absent: it is not counted
	TriesDone int       `json:"tries_done,omitempty"`
	Why       string    `json:"why,omitempty"` // of failed, and of a try that failed
}

// SlotState is how far an image came.
type SlotState string

// The states.
const (
	Good   SlotState = "good"   // it passed, or came with the disk
	Staged SlotState = "staged" // installed, not tried
	Trying SlotState = "trying" // tried, with tries left or under way
	Failed SlotState = "failed" // no tries left: the boot loader passes it over
	Aside  SlotState = "aside"  // good, and put behind the other by an operator or by a downgrade
)

func (n Name) state(runs bool) SlotState {
	switch {
	case !n.Counted:
		return Good
	case n.aside():
		return Aside
	case n.Done == 0:
		return Staged
	case n.bad() && !runs: // the last try is under way while it runs
		return Failed
	}
	return Trying
}

// Status reads what stands.
func (m *Machine) Status() (Status, error) {
	l, err := m.look()
	if err != nil {
		return Status{}, err
	}
	s := Status{Running: m.version, Slots: []Slot{}}
	next, some := l.next()
	s.Next = next.Version
	for _, one := range l.slots {
		out := Slot{Version: one.Version, File: one.File(), Bytes: one.size, Running: one.runs, Next: some && one.Name == next,
			State: one.state(one.runs), TriesDone: one.Done}
		if one.Counted {
			out.TriesLeft = &one.Left
		}
		if one.Counted && one.Done > 0 {
			out.Why = m.why(one.Name)
		}
		s.Slots = append(s.Slots, out)
	}
	for _, v := range []struct{ name, value string }{{varOneshot, l.oneshot}, {varDefault, l.standing}} {
		if v.value != "" && s.Forced == "" {
			s.Forced = v.name + " = " + v.value
		}
	}
	if s.Trial, err = m.Counted(); err != nil {
		return s, err
	}
	s.Note = l.odd(m.version)
	return s, nil
}

// odd is what no update makes.
func (l layout) odd(version string) string {
	var out []string
	if _, ok := l.running(); !ok {
		out = append(out, fmt.Sprintf("version %s was not started from this node's disk", version))
	}
	seen := map[string]string{}
	for _, s := range l.slots {
		if other := seen[s.Version]; other != "" {
			out = append(out, fmt.Sprintf("%s and %s are one version: a power cut fell into a rename, see docs/updates.md", other, s.File()))
		}
		seen[s.Version] = s.File()
		if s.runs && s.Version != version {
			out = append(out, fmt.Sprintf("%s runs, and says that it is version %s", s.File(), version))
		}
	}
	for _, file := range l.empty {
		out = append(out, file+" is empty: a power cut fell into a rename; the next install removes it")
	}
	removed, _ := l.removable()
	for _, n := range l.leftover {
		if file := n.File() + staged; slices.Contains(removed, file) {
			out = append(out, file+" is left of an install that did not end; the next one removes it")
		} else {
			out = append(out, file+" may be another name of the slot that is kept: a power cut fell into a rename, see docs/updates.md")
		}
	}
	return strings.Join(out, "; ")
}

// why says how the tries of an image ended.
func (m *Machine) why(n Name) string {
	var v verdict
	ok, err := m.notes.read(m.notes.verdictFile(n.Version), &v)
	switch {
	case err != nil:
		return fmt.Sprintf("what its health gate said cannot be read: %v", err)
	case !ok:
		return "it left no word: it did not come as far as its health gate (a panic, a hang, a power cut)"
	case v.Passed && !n.bad():
		return ""
	case v.Passed:
		return "it passed its health gate before, and left no word since"
	}
	return fmt.Sprintf("its health gate failed (%s): %s", v.At.UTC().Format("2006-01-02 15:04 MST"), strings.Join(v.Why, "; "))
}
