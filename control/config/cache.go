package config

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// Cache parses, and remembers what the last good file was read into, so that the next one costs what differs. What it
// holds is part of the last Config: they share rules and prefixes, which nobody may change. The zero Cache is ready; it is
// safe for concurrent use.
type Cache struct {
	grain grain // finer in tests; the zero grain is coarse

	mu   sync.Mutex
	last memory
}

// memory is what one file was read into. It is never changed.
type memory struct {
	name   string // of the file: it stands in every place
	seeds  [2]maphash.Seed
	pieces map[fingerprint]bundle
	items  map[fingerprint]items
	files  map[string]*setFile // without errors, by path
}

// fingerprint tells pieces apart: two independent hashes of 64 bits, and the policy, which some rules depend on.
type fingerprint struct {
	hash [2]uint64
	in   judged
}

func (m *memory) fingerprint(text []byte, in judged) fingerprint {
	return fingerprint{[2]uint64{maphash.Bytes(m.seeds[0], text), maphash.Bytes(m.seeds[1], text)}, in}
}

// known is the memory for a file of this name.
func (c *Cache) known(name string) memory {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.name != name || c.last.files == nil {
		return memory{name: name, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	}
	return c.last
}

// Parse is the function Parse, at less cost where much of the file was read before.
func (c *Cache) Parse(src Source) (*Config, error) {
	m := c.known(src.Name)
	files := &setReader{read: src.ReadFile, known: m.files, now: map[string]*setFile{}}
	cfg, now := parsePieces(src, cmp.Or(c.grain, coarse()), m, files)
	if cfg == nil {
		var err error
		if cfg, err = parseWhole(src, files); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = memory{name: m.name, seeds: m.seeds, pieces: now.pieces, items: now.items, files: files.now}
	return cfg, nil
}

// setReader reads the set files of one Parse, each once.
type setReader struct {
	read       func(path string) ([]byte, error) // nil: they are not at hand
	known, now map[string]*setFile
}

// setFile is a set file that was read.
type setFile struct {
	contents []byte
	err      error
	prefixes []netip.Prefix // ascending, each once
	lines    int            // that hold one
	families families
	good     bool // every line of it
}

// get returns a file, with its prefixes where much of its contents was read before.
func (s *setReader) get(path string) *setFile {
	if f := s.now[path]; f != nil {
		return f
	}
	f := &setFile{}
	f.contents, f.err = s.read(path)
	if before := s.known[path]; before != nil && f.err == nil {
		if bytes.Equal(before.contents, f.contents) {
			f = before
		} else if !f.follow(before) {
			f = &setFile{contents: f.contents}
		}
	}
	s.now[path] = f
	return f
}

// longSets are the bytes of set files from which on a configuration is long, however few rules it has.
const longSets = 1 << 18

// SetFiles reads the set files of a long configuration as Parse would, sorted by path, and judges nothing. Not certain:
// only Parse can tell, because all of it is short, or something in it or in them is wrong.
func SetFiles(src Source) (out []File, certain bool) {
	skeleton, cuts := cutLists(src.Bytes, coarse())
	r := newReader(newReport(src.Name))
	r.cuts = cuts
	var raw rawConfig
	node := r.document(skeleton)
	if len(src.Bytes) > maxFile || node == nil || placed(node, cuts) != len(cuts) || !r.into(&raw, node, r.at(node, root)) {
		return nil, false
	}
	files := &setReader{read: src.ReadFile, now: map[string]*setFile{}}
	for _, s := range raw.Sets.items {
		for _, f := range s.Files.items {
			if s.Watch.v {
				continue // state of the moment
			}
			if read := files.get(string(f.v)); read.err != nil || len(read.contents) > maxSetFile {
				return nil, false
			}
		}
	}
	size := 0
	for _, path := range slices.Sorted(maps.Keys(files.now)) {
		out = append(out, File{Path: path, Contents: files.now[path].contents})
		size += len(files.now[path].contents)
	}
	return out, len(r.list) == 0 && (len(cuts) > 0 || size >= longSets)
}
