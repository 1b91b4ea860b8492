package table

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"

	"sluice/xdp/pin"
)

// Lacks says whether a pin is gone that hooks with a generation need: one of theirs (see pin.Dir.Holds), or a shared map that every
// program uses. It reads names only.
func Lacks(dir *pin.Dir, hooks []pin.Hook, owner, digest string) (bool, error) {
	if len(hooks) == 0 {
		return false, nil
	}
	if holds, err := dir.Holds(hooks, owner, digest); err != nil || !holds {
		return err == nil, err
	}
	held, err := dir.StateMaps()
	if err != nil {
		return false, err
	}
	for name, at := range sharedPins {
		if !held.Has(at.pin, at.version) && !slices.Contains(notEverywhere, name) {
			return true, nil
		}
	}
	return false, nil
}

// Repin puts back the pins of maps that OpenState opened, where somebody has removed them, or put others there: what is loaded next would
// look into others, and nobody would write into those.
func Repin(path string, open map[string]*ebpf.Map) error {
	dir, err := pin.Open(path)
	if err != nil {
		return err
	}
	var errs []error
	for name, m := range open {
		if err := repin(dir, name, m); err != nil {
			errs = append(errs, fmt.Errorf("state map %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func repin(dir *pin.Dir, name string, m *ebpf.Map) error {
	there, err := ReadShared(dir, name)
	if err != nil {
		return err
	}
	if there != nil {
		same, err := sameMap(there, m)
		if err = errors.Join(err, there.Close()); err != nil || same {
			return err
		}
		if err := os.Remove(SharedPath(dir, name)); err != nil {
			return err
		}
	}
	own, err := m.Clone() // which, unlike m, does not know that it was pinned there
	if err != nil {
		return err
	}
	return errors.Join(own.Pin(SharedPath(dir, name)), own.Close())
}

func sameMap(a, b *ebpf.Map) (bool, error) {
	ofA, err1 := a.Info()
	ofB, err2 := b.Info()
	if err := errors.Join(err1, err2); err != nil {
		return false, err
	}
	idA, _ := ofA.ID()
	idB, _ := ofB.ID()
	return idA == idB, nil
}
