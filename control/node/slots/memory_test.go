package slots

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// memory is a volume that a power cut can hit ahead of each operation, and that forgets then what was not synced, in every way that
// FAT may: any of the changes of the directory since the last sync may be there, in any combination, a rename as its new name
// and its old one apart; of a file that was not synced all, half or nothing may. So two names may be of one file: removing one frees
// the clusters of both.
type memory struct {
	now     map[string]*inode
	durable map[string]*inode
	pending []change
	gone    []*inode
	room    int64

	cut  int   // operations until the power fails; negative: never
	fail error // instead of a power cut: this operation alone fails
}

type inode struct {
	data   []byte
	synced int      // of data
	freed  bool     // its clusters are anybody's
	over   []*inode // that were freed before it came: it may have their clusters
}

// free gives the clusters back. A second time they are those of whoever got them meanwhile.
func (m *memory) release(node *inode) {
	if node.freed {
		for _, other := range m.now {
			other.freed = other.freed || slices.Contains(other.over, node)
		}
	}
	node.freed = true
	m.gone = append(m.gone, node)
}

// change is one entry of the directory that comes (node) or goes.
type change struct {
	name    string
	node    *inode
	renamed bool // the name comes first, and its length and clusters later
}

// errCut ends whoever works when the power fails.
var errCut = errors.New("the power fails")

func newMemory(room int64, files map[string][]byte) *memory {
	m := &memory{now: map[string]*inode{}, durable: map[string]*inode{}, room: room, cut: -1}
	for name, data := range files {
		m.now[name] = &inode{data: data, synced: len(data)}
	}
	m.durable = maps.Clone(m.now)
	return m
}

// step is called ahead of each operation.
func (m *memory) step() error {
	if m.cut == 0 {
		if m.fail != nil {
			m.cut = -1
			return m.fail
		}
		return errCut // and so do all that follow: nobody cleans up after a power cut
	}
	if m.cut > 0 {
		m.cut--
	}
	return nil
}

func (m *memory) list() ([]entry, error) {
	var out []entry
	for _, name := range slices.Sorted(maps.Keys(m.now)) {
		out = append(out, entry{name, int64(len(m.now[name].data))})
	}
	return out, nil
}

func (m *memory) create(name string) (newFile, error) {
	if err := m.step(); err != nil {
		return nil, err
	}
	if m.now[name] != nil {
		return nil, fs.ErrExist
	}
	node := &inode{over: slices.Clone(m.gone)}
	m.set(name, node)
	return &memoryFile{m, node}, nil
}

func (m *memory) set(name string, node *inode) {
	if node == nil {
		delete(m.now, name)
	} else {
		m.now[name] = node
	}
	m.pending = append(m.pending, change{name: name, node: node})
}

func (m *memory) open(name string) (readable, error) {
	node := m.now[name]
	if node == nil {
		return nil, fs.ErrNotExist
	}
	return memoryReader{bytes.NewReader(node.data)}, nil
}

func (m *memory) rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	node := m.now[from]
	if node == nil {
		return fs.ErrNotExist
	}
	if over := m.now[to]; over != nil {
		m.release(over)
	}
	m.set(to, node)
	m.pending[len(m.pending)-1].renamed = true
	m.set(from, nil)
	return nil
}

func (m *memory) remove(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	node := m.now[name]
	if node == nil {
		return fs.ErrNotExist
	}
	m.set(name, nil)
	m.release(node)
	return nil
}

func (m *memory) sync() error {
	if err := m.step(); err != nil {
		return err
	}
	m.durable, m.pending = maps.Clone(m.now), nil
	return nil
}

func (m *memory) free() (int64, error) {
	free, counted := m.room, map[*inode]bool{}
	for _, node := range m.now {
		if !counted[node] {
			free -= int64(len(node.data))
		}
		counted[node] = true
	}
	return free, nil
}

// shape tells disks apart: which names there are, of how many bytes, and which of them are one file.
func (m *memory) shape() string {
	var out strings.Builder
	first := map[*inode]string{}
	for _, name := range slices.Sorted(maps.Keys(m.now)) {
		node := m.now[name]
		if first[node] == "" {
			first[node] = name
		}
		fmt.Fprintln(&out, name, len(node.data), node.freed, first[node])
	}
	return out.String()
}

// files are what can be read; of one whose clusters are gone, nothing.
func (m *memory) files() map[string][]byte {
	files := map[string][]byte{}
	for name, node := range m.now {
		files[name] = node.data
		if node.freed {
			files[name] = nil
		}
	}
	return files
}

type memoryReader struct{ io.ReaderAt }

func (memoryReader) Close() error { return nil }

type memoryFile struct {
	m    *memory
	node *inode
}

func (f *memoryFile) Write(p []byte) (int, error) {
	if err := f.m.step(); err != nil {
		return 0, err
	}
	if free, _ := f.m.free(); free < int64(len(p)) {
		return 0, errors.New("no space left on device")
	}
	f.node.data = append(f.node.data, p...)
	return len(p), nil
}

func (f *memoryFile) Sync() error {
	if err := f.m.step(); err != nil {
		return err
	}
	f.node.synced = len(f.node.data)
	return nil
}

func (f *memoryFile) Close() error { return nil }

// afterCut calls each with what may be on the disk after a power cut now.
func (m *memory) afterCut(each func(after *memory)) {
	for subset := range 1 << (2 * len(m.pending)) {
		names := maps.Clone(m.durable)
		for i, c := range m.pending {
			switch {
			case subset>>(2*i)&1 == 0:
			case c.node == nil:
				delete(names, c.name)
			case c.renamed && subset>>(2*i)&2 == 0:
				names[c.name] = &inode{}
			default:
				names[c.name] = c.node
			}
		}
		for part := range 3 { // of what was not synced: nothing, half, all
			after, known := newMemory(m.room, nil), map[*inode]*inode{}
			for name, node := range names {
				if known[node] == nil {
					known[node] = &inode{data: node.data[:node.synced+(len(node.data)-node.synced)*part/2], freed: node.freed && m.now[name] == node}
					known[node].synced = len(known[node].data)
				}
				after.now[name] = known[node]
			}
			after.durable = maps.Clone(after.now)
			each(after)
		}
	}
}
