package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// StateMapPath is where a state map is pinned.
func (d *Dir) StateMapPath(name string, version int) string {
	return filepath.Join(d.path, mapsDir, fmt.Sprintf("%s-v%d", name, version))
}

// StateMap opens the state map <name>-v<version>, and makes it as spec says where there is none. A map of another size
// than spec.MaxEntries is replaced: a new one takes over the entries and then the pin. Programs that are loaded already
// keep the old one, so whoever calls this loads a generation next; entries that are written meanwhile are lost. A map
// of another type, key or value is an error: a new layout needs a new version.
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
	resized, err := d.ReplaceStateMap(spec, name, version, func(fresh *ebpf.Map) error { return copyEntries(m, fresh) })
	if err != nil {
		return nil, fmt.Errorf("from %d to %d entries: %w", m.MaxEntries(), spec.MaxEntries, err)
	}
	return resized, nil
}

// ReplaceStateMap makes <name>-v<version> anew, lets fill write into it what it takes over, and then gives it the pin,
// whether or not there was one. As with StateMap, what programs write meanwhile into a map before it is lost.
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

// copyEntries copies what a walk sees. A hash that others write may show an entry twice or not at all: what is missed
// is what was written just now. A smaller LRU evicts; a smaller hash that does not hold everything is an error.
func copyEntries(from, to *ebpf.Map) error {
	var key, value []byte
	entries := from.Iterate()
	for entries.Next(&key, &value) {
		if err := to.Put(key, value); err != nil {
			return fmt.Errorf("copy an entry: %w", err)
		}
	}
	if err := entries.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("walk the old map: %w", err)
	}
	return nil
}
