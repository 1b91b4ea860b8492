package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// StateMapPath is where a state map is pinned.
func (d *Dir) StateMapPath(name string, version int) string {
	return filepath.Join(d.path, mapsDir, fmt.Sprintf("%s-v%d", name, version))
}

// StateMap opens the state map <name>-v<version>, and makes it as spec says where there is none. A hash of another size than
// spec.MaxEntries is superseded: an empty one gets the pin, and the one of before is among Formers until its entries were
// taken over. Programs that are loaded already keep it, so whoever calls this loads a generation next. A map of another type,
// key or value is an error: a new layout needs a new version.
func (d *Dir) StateMap(spec *ebpf.MapSpec, name string, version int) (*ebpf.Map, error) {
	path := d.StateMapPath(name, version)
	m, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return newStateMap(spec, path)
	}
	if err != nil {
		return nil, fmt.Errorf("state map %s: %w", name, err)
	}
	if m.Type() != spec.Type || m.KeySize() != spec.KeySize || m.ValueSize() != spec.ValueSize || m.Flags() != spec.Flags {
		m.Close()
		return nil, fmt.Errorf("state map %s: the pin has another layout than this version of sluice: %v, key %d, value %d bytes",
			path, m.Type(), m.KeySize(), m.ValueSize())
	}
	if m.MaxEntries() == spec.MaxEntries {
		return m, nil
	}
	defer m.Close()
	if spec.Type != ebpf.Hash && spec.Type != ebpf.LRUHash {
		return nil, fmt.Errorf("state map %s: it has %d entries, not %d: a %v has one size per layout version, or ReplaceStateMap",
			name, m.MaxEntries(), spec.MaxEntries, spec.Type)
	}
	fresh, err := supersede(spec, m, path)
	if err != nil {
		return nil, fmt.Errorf("state map %s, from %d to %d entries: %w", name, m.MaxEntries(), spec.MaxEntries, err)
	}
	return fresh, nil
}

// StateMaps are the pins of state maps at one moment.
type StateMaps struct {
	dir  *Dir
	pins []string // sorted
}

// StateMaps lists them.
func (d *Dir) StateMaps() (StateMaps, error) {
	pins, err := names(filepath.Join(d.path, mapsDir))
	return StateMaps{d, pins}, err
}

// Has says whether <name>-v<version> is among them.
func (s StateMaps) Has(name string, version int) bool {
	return slices.Contains(s.pins, filepath.Base(s.dir.StateMapPath(name, version)))
}

// Formers are the paths of the maps that were superseded as <name>-v<version>, sorted.
func (s StateMaps) Formers(name string, version int) []string {
	prefix := filepath.Base(s.dir.StateMapPath(name, version)) + formerInfix
	var out []string
	for _, pin := range s.pins {
		if strings.HasPrefix(pin, prefix) {
			out = append(out, filepath.Join(s.dir.path, mapsDir, pin))
		}
	}
	return out
}

// Formers are those of StateMaps now.
func (d *Dir) Formers(name string, version int) ([]string, error) {
	all, err := d.StateMaps()
	return all.Formers(name, version), err
}

// RemoveFormer removes the pin of one. Programs that use the map keep it.
func (d *Dir) RemoveFormer(path string) error { return removePin(path) }

// ReplaceStateMap makes <name>-v<version> anew, lets fill write into it what it takes over, and then gives it the pin,
// whether or not there was one. What programs write meanwhile into a map before it is lost.
func (d *Dir) ReplaceStateMap(spec *ebpf.MapSpec, name string, version int, fill func(*ebpf.Map) error) (*ebpf.Map, error) {
	path := d.StateMapPath(name, version)
	m, err := replace(spec, path, fill)
	if err != nil {
		return nil, fmt.Errorf("replace state map %s: %w", name, err)
	}
	return m, nil
}

// RemoveStateMap removes the pin. Programs that use the map keep it.
func (d *Dir) RemoveStateMap(name string, version int) error {
	return removePin(d.StateMapPath(name, version))
}

func newStateMap(spec *ebpf.MapSpec, path string) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("make state map %s: %w", filepath.Base(path), err)
	}
	if err := m.Pin(path); err != nil {
		m.Close()
		return nil, fmt.Errorf("pin state map %s: %w", path, err)
	}
	return m, nil
}

func replace(spec *ebpf.MapSpec, path string, fill func(*ebpf.Map) error) (*ebpf.Map, error) {
	staged := path + "-new"
	if err := removePin(staged); err != nil { // of a process that died here
		return nil, err
	}
	m, err := newStateMap(spec, staged)
	if err != nil {
		return nil, err
	}
	if err := fill(m); err != nil {
		m.Close()
		return nil, errors.Join(err, removePin(staged))
	}
	if err := os.Rename(staged, path); err != nil {
		m.Close()
		return nil, errors.Join(err, removePin(staged))
	}
	m.Close() // its idea of where it is pinned is out of date
	return ebpf.LoadPinnedMap(path, nil)
}

// formerInfix stands between the pin's name and the map's id, so that any number of them may wait to be taken over.
const formerInfix = "-former-"

// supersede makes an empty map and gives it the pin of m. After a crash between the two renames the pin is missing, and what
// is opened next is a new map: the entries are those of the former one in any case.
func supersede(spec *ebpf.MapSpec, m *ebpf.Map, path string) (*ebpf.Map, error) {
	info, err := m.Info()
	if err != nil {
		return nil, err
	}
	id, _ := info.ID()
	return replace(spec, path, func(*ebpf.Map) error {
		return os.Rename(path, fmt.Sprintf("%s%s%d", path, formerInfix, id))
	})
}
