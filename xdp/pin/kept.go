package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
)

// Kept holds pinned maps open from one look to the next, for who looks every few seconds: to open a map takes several times
// what it takes to read it. The zero value holds none. One at a time may use it.
type Kept struct {
	maps map[string]*ebpf.Map
	pins map[string]fs.FileInfo
}

// Renew has it hold the maps of these pins, by path, as they are now: it opens them anew, and others then says so, where a pin
// is another than the last time. Where one is missing it holds none.
func (k *Kept) Renew(paths ...string) (others bool, err error) {
	held, pins := k.maps != nil, make(map[string]fs.FileInfo, len(paths))
	same := len(paths) == len(k.pins)
	for _, path := range paths {
		// Before the map is opened: one that is pinned in between is another at the next look, and opened again.
		pins[path], err = os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return held, k.Close()
		}
		if err != nil {
			return false, err
		}
		// A bpffs gives each pin an inode of its own, also one that is renamed over another.
		same = same && k.pins[path] != nil && os.SameFile(pins[path], k.pins[path])
	}
	if same {
		return false, nil
	}
	if err := k.Close(); err != nil {
		return held, err
	}
	k.maps, k.pins = map[string]*ebpf.Map{}, pins
	for _, path := range paths {
		m, err := ebpf.LoadPinnedMap(path, nil)
		if errors.Is(err, fs.ErrNotExist) {
			return held, k.Close()
		}
		if err != nil {
			return held, errors.Join(fmt.Errorf("pinned map %s: %w", path, err), k.Close())
		}
		k.maps[path] = m
	}
	return true, nil
}

// Map is the one of that pin; nil: it holds none.
func (k *Kept) Map(path string) *ebpf.Map { return k.maps[path] }

// Close closes the descriptors, and it holds none then.
func (k *Kept) Close() error {
	var errs []error
	for _, m := range k.maps {
		errs = append(errs, m.Close())
	}
	*k = Kept{}
	return errors.Join(errs...)
}
