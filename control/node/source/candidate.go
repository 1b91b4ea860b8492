package source

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"sluice/control/config"
	"sluice/control/disk"
)

// What a source may cost: it is copied into memory.
const (
	maxFile = 16 << 20  // the configuration, as config takes it
	maxAll  = 128 << 20 // all of its set files together
	maxKey  = 64 << 10
)

const readOnly = os.O_RDONLY | syscall.O_NONBLOCK // a pipe on a medium holds up nobody

// candidate is a source in memory.
type candidate struct {
	origin   Origin
	device   string
	text     []byte
	sets     map[string][]byte // beside the file, by path
	watched  map[string]bool   // of these: their contents are no part of what it is
	keys     map[string][]byte // by the name below the keys directory
	problems []string
	wanted   []string // key files that the text names
	refused  []string // why a key was not taken
}

// newCandidate takes what the text names from root; nil: there is nothing beside it.
func newCandidate(origin Origin, device string, text []byte, root *os.Root) *candidate {
	c := &candidate{origin: origin, device: device, text: text, sets: map[string][]byte{}, watched: map[string]bool{}, keys: map[string][]byte{}}
	left := int64(maxAll)
	beside := func(path string) ([]byte, error) {
		if root == nil {
			return nil, errors.New("a credential has no files beside it; write the prefixes into the file")
		}
		b, err := readFile(func() (*os.File, error) { return root.OpenFile(path, readOnly, 0) }, left)
		if err == nil {
			c.sets[path], left = b, left-int64(len(b))
		}
		return b, err
	}
	cfg, err := config.Parse(config.Source{Name: FileName, Bytes: text, ReadFile: func(path string) ([]byte, error) {
		if filepath.IsAbs(path) { // the machine's own
			return readFile(func() (*os.File, error) { return os.OpenFile(path, readOnly, 0) }, maxAll)
		}
		return beside(path)
	}})
	if err != nil {
		// In short: all errors are told by the daemon, which judges it again.
		c.problems = append(c.problems, fmt.Sprintf("%s is bad: %v", FileName, config.First(err)))
	}
	if cfg != nil {
		for _, path := range cfg.Watched() {
			if filepath.IsAbs(path) || c.sets[path] != nil {
				continue
			}
			if _, err := beside(path); err != nil {
				c.problems = append(c.problems, fmt.Sprintf("the watched set file %s cannot be read: %v", path, err))
				continue
			}
			c.watched[path] = true
		}
	}
	c.wanted = config.KeyFilesIn(text, "/")
	if root != nil {
		c.readKeys(root)
	}
	return c
}

// readKeys takes the key files of the medium that the text asks for by the same name in the keys directory.
func (c *candidate) readKeys(root *os.Root) {
	for _, path := range c.wanted {
		name := filepath.Base(path)
		b, err := readFile(func() (*os.File, error) { return root.OpenFile(filepath.Join(keysName, name), readOnly, 0) }, maxKey)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			c.refused = append(c.refused, fmt.Sprintf("key file %s/%s cannot be read: %v", keysName, name, err))
		default:
			c.keys[name] = b
		}
	}
}

// keep puts keys into the directory of keys, mode 0600. One that is there stays: keys do not roll back with a configuration, so a trial
// that goes back would leave the old one without its key.
func (c *candidate) keep(dir string) (kept []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(c.keys)) {
		path := filepath.Join(dir, name)
		there, failed := os.ReadFile(path)
		switch {
		case !slices.Contains(c.wanted, path):
			c.refused = append(c.refused, fmt.Sprintf("key file %s/%s is not taken: the file names it elsewhere; write %s", keysName, name, path))
		case failed == nil && !bytes.Equal(there, c.keys[name]):
			c.refused = append(c.refused, fmt.Sprintf("key file %s/%s is not taken: %s is there and holds another key; give the new one another name", keysName, name, path))
		case failed == nil:
		case !errors.Is(failed, fs.ErrNotExist):
			err = errors.Join(err, failed)
		default:
			if failed = errors.Join(os.MkdirAll(dir, 0o700), disk.Replace(path, c.keys[name])); failed != nil {
				err = errors.Join(err, fmt.Errorf("key file %s: %w", name, failed))
				continue
			}
			kept = append(kept, name)
		}
	}
	return kept, err
}

// names are the files beside FileName, sorted.
func (c *candidate) names() []string { return slices.Sorted(maps.Keys(c.sets)) }

// digest says what is to be decided about: the file, and the set files that are part of a revision.
func (c *candidate) digest() string {
	h := sha256.New()
	put := func(b []byte) {
		var n [8]byte // so that no two run together
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	put(c.text)
	for _, name := range c.names() {
		if !c.watched[name] {
			put([]byte(name))
			put(c.sets[name])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// readFile reads a regular file of at most limit bytes.
func readFile(open func() (*os.File, error), limit int64) ([]byte, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return b, err
}
