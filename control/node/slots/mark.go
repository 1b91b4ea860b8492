package slots

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Marked is which version the next boots start, and what it took.
type Marked struct {
	Next    string   `json:"next"`
	Running string   `json:"running"`
	Changed []string `json:"changed"` // file names, old and new; none: it was so before
}

// ErrNoOther: there is nothing to go back to.
var ErrNoOther = errors.New("there is no other version on this node")

// Rollback has the next boots start the other slot.
func (m *Machine) Rollback() (Marked, error) {
	unlock, err := m.lock(unix.LOCK_NB)
	if err != nil {
		return Marked{}, err
	}
	defer unlock()
	l, err := m.look()
	if err != nil {
		return Marked{}, err
	}
	others := l.others()
	if len(others) == 0 {
		return Marked{}, fmt.Errorf("%w than %s, which runs", ErrNoOther, m.version)
	}
	other := others[0]
	switch {
	case other.bad() && !other.aside():
		return Marked{}, fmt.Errorf("version %s used up its %d tries: %s; install it anew to try it again", other.Version, other.Done, m.why(other.Name))
	case other.Counted && other.Left > 0:
		if next, _ := l.next(); next == other.Name {
			return Marked{}, fmt.Errorf("version %s is an update on trial: a reboot tries it, `sluice image promote` keeps %s", other.Version, m.version)
		}
		return Marked{}, fmt.Errorf("version %s has not passed a trial: %s; install it anew to try it", other.Version, m.why(other.Name))
	}
	return m.prefer(l, other.Name)
}

// Promote has the next boots start the version that runs, and blesses it if this is a try.
func (m *Machine) Promote() (Marked, error) {
	unlock, err := m.lock(unix.LOCK_NB)
	if err != nil {
		return Marked{}, err
	}
	defer unlock()
	l, err := m.look()
	if err != nil {
		return Marked{}, err
	}
	r, ok := l.running()
	if !ok {
		return Marked{}, fmt.Errorf("version %s was not started from this node's disk: there is nothing to promote", m.version)
	}
	return m.prefer(l, r.Name)
}

// prefer makes a slot the one that systemd-boot chooses: without a counter, and where it would still come second, with the others set
// aside. One rename at a time: whatever a power cut leaves of them, there is a slot that boots.
func (m *Machine) prefer(l layout, n Name) (Marked, error) {
	out := Marked{Next: n.Version, Running: m.version, Changed: []string{}}
	if err := l.single(); err != nil {
		return out, err
	}
	names := l.names()
	move := func(from, to Name) error {
		if from == to {
			return nil
		}
		if err := m.esp.rename(from.File(), to.File()); err != nil {
			return err
		}
		names[slices.Index(names, from)] = to
		out.Changed = append(out.Changed, from.File()+" -> "+to.File())
		return m.esp.sync()
	}
	if err := move(n, n.plain()); err != nil {
		return out, err
	}
	if err := m.unpoint(n.plain()); err != nil {
		return out, err
	}
	// A trial that goes on meanwhile would put itself first when it passes.
	if r, ok := l.running(); ok && r.Version != n.Version && r.Counted && !r.bad() {
		if err := move(r.Name, r.setAside()); err != nil {
			return out, err
		}
	}
	return out, setBehind(names, n.plain(), move)
}

// single refuses to rename where two files are of one version. They may be two names of one file, and a rename onto the other name frees
// the clusters of both.
func (l layout) single() error {
	for i, s := range l.slots {
		if j := slices.IndexFunc(l.slots[:i], func(o slot) bool { return strings.EqualFold(o.Version, s.Version) }); j >= 0 {
			return fmt.Errorf("%s and %s are one version: a power cut fell into a rename, see docs/updates.md", l.slots[j].File(), s.File())
		}
	}
	return nil
}

// Keep makes the version that runs the one that stays once it is blessed: after a downgrade the newer one would come first again. It
// waits for whoever changes the slots: an update that is well must not fail for that. A rollback by hand meanwhile stands.
func (m *Machine) Keep() error {
	unlock, err := m.lock(0)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := m.look()
	if err != nil {
		return err
	}
	r, ok := l.running()
	if !ok || r.aside() {
		return nil
	}
	names := l.names()
	names[slices.Index(names, r.Name)] = r.plain()
	return setBehind(names, r.plain(), func(from, to Name) error {
		if err := l.single(); err != nil {
			return err
		}
		if err := m.esp.rename(from.File(), to.File()); err != nil {
			return err
		}
		return m.esp.sync()
	})
}

// setBehind has others set aside where n would not be chosen.
func setBehind(names []Name, n Name, move func(from, to Name) error) error {
	if first, ok := Choose(names, "", ""); !ok || first == n {
		return nil
	}
	for _, other := range slices.Clone(names) {
		if other.Version != n.Version && !other.bad() {
			if err := move(other, other.setAside()); err != nil {
				return err
			}
		}
	}
	return nil
}

// unpoint removes what the boot loader's variables say in favour of another entry: it would win over every name.
func (m *Machine) unpoint(n Name) error {
	l, err := m.look()
	if err != nil {
		return err
	}
	for name, value := range map[string]string{varOneshot: l.oneshot, varDefault: l.standing} {
		if value != "" && !named(value, n) {
			if err := m.efi.unset(name); err != nil {
				return err
			}
		}
	}
	return nil
}
