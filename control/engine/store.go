package engine

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/control/config"
)

// RevisionStatus is how far a revision came.
type RevisionStatus string

// The statuses. A pending revision that no pending.json speaks of was interrupted, and is reverted at the next start.
const (
	Pending   RevisionStatus = "pending"
	Confirmed RevisionStatus = "confirmed"
	Reverted  RevisionStatus = "reverted"
)

// Meta describes one revision.
type Meta struct {
	Schema  int            `json:"schema"`
	Number  int            `json:"number"` // from 1, never used twice
	Time    time.Time      `json:"time"`
	Author  string         `json:"author"`
	UID     int            `json:"uid"`
	Message string         `json:"message"`
	Name    string         `json:"name"` // of FILE when it was applied
	Base    int            `json:"base"` // the confirmed revision before; 0: none
	Status  RevisionStatus `json:"status"`
	Reason  string         `json:"reason,omitempty"` // why it was reverted
	Digest  string         `json:"digest"`           // SHA-256, hexadecimal, over FILE and its set files
	Guarded bool           `json:"guarded"`          // went live under a timer or under checks
}

// manifest says which stored file holds what. The first entry is FILE itself, with an empty Path.
type manifest struct {
	Schema int         `json:"schema"`
	Files  []storedRef `json:"files"`
}

type storedRef struct {
	Path   string `json:"path"`   // as the configuration writes it
	Stored string `json:"stored"` // inside the revision's directory
	SHA256 string `json:"sha256"` // hexadecimal
}

// ErrNoRevision says that a revision's number is not in the store.
var ErrNoRevision = errors.New("no such revision")

// Store keeps revisions under state_dir/revisions/N, the pending state and the rule ids. It wants the Lock of its
// state directory to be held. It is not safe for concurrent use; Engine serialises it.
type Store struct {
	dir   string // state_dir
	disk  disk
	metas map[int]Meta
	last  int   // highest number ever seen, torn ones included
	torn  []int // set aside now, or before and newer than what was confirmed since
	ids   idJournal
	// lostIDs is why the rule ids could not be read; nil: they could, or there were none.
	lostIDs error
	// damaged: revisions were set aside, now or at an earlier start. What they held is not known.
	damaged bool
}

// OpenStore opens or makes the store under stateDir. What a crash left of a revision that was being written is removed;
// a directory whose metadata is unreadable is set aside as torn-N. ErrNewerSchema: nothing was changed.
func OpenStore(stateDir string) (*Store, error) { return openStore(stateDir, disk{}) }

func openStore(stateDir string, d disk) (*Store, error) {
	s := &Store{dir: stateDir, disk: d, metas: map[int]Meta{}}
	if err := d.mkdir(s.revisions()); err != nil {
		return nil, fmt.Errorf("state_dir %s: %w", stateDir, err)
	}
	entries, err := os.ReadDir(s.revisions())
	if err != nil {
		return nil, err
	}
	// Everything is looked at before the first change, so that a newer schema anywhere leaves the directory as it is.
	var leftovers []string
	var torn, aside []int
	for _, e := range entries {
		name := e.Name()
		number := strings.TrimPrefix(name, "torn-")
		n, err := strconv.Atoi(number)
		switch {
		case strings.HasPrefix(name, "."):
			leftovers = append(leftovers, name)
		case err != nil || n < 1 || strconv.Itoa(n) != number || !e.IsDir():
			continue // not of our making
		case number != name:
			s.last, s.damaged = max(s.last, n), true
			aside = append(aside, n)
		default:
			s.last = max(s.last, n)
			var m Meta
			err := decode(filepath.Join(s.revision(n), "meta.json"), &m)
			if errors.Is(err, errTorn) || errors.Is(err, fs.ErrNotExist) || err == nil && m.Number != n {
				torn = append(torn, n)
			} else if err != nil {
				return nil, err
			} else {
				s.metas[n] = m
			}
		}
	}
	for _, file := range []string{pendingFile, ruleIDFile} {
		if err := decode(filepath.Join(s.dir, file), &struct{}{}); errors.Is(err, ErrNewerSchema) {
			return nil, err
		}
	}
	for _, n := range aside {
		if confirmed := s.confirmed(); len(confirmed) == 0 || n > confirmed[0] {
			s.torn = append(s.torn, n)
		}
	}
	return s, s.clean(leftovers, torn)
}

func (s *Store) clean(leftovers []string, torn []int) error {
	for _, name := range leftovers {
		if err := s.disk.remove(filepath.Join(s.revisions(), name)); err != nil {
			return err
		}
	}
	for _, n := range torn {
		aside := filepath.Join(s.revisions(), fmt.Sprintf("torn-%d", n))
		// A backup that was put back may bring the number a second time.
		if err := s.disk.remove(aside); err != nil {
			return err
		}
		if err := s.disk.rename(s.revision(n), aside); err != nil {
			return err
		}
		s.torn, s.damaged = append(s.torn, n), true
	}
	return nil
}

func (s *Store) revisions() string     { return filepath.Join(s.dir, "revisions") }
func (s *Store) revision(n int) string { return filepath.Join(s.revisions(), strconv.Itoa(n)) }

// List returns every revision, the oldest first.
func (s *Store) List() []Meta {
	return slices.SortedFunc(maps.Values(s.metas), func(a, b Meta) int { return cmp.Compare(a.Number, b.Number) })
}

// put stores the content of a target as a new revision and returns its metadata with number and digest filled in. The
// directory gets its final name last, so a revision is there as a whole or not at all.
func (s *Store) put(t *target, m Meta) (Meta, error) {
	c := t.content
	m.Schema, m.Number, m.Digest, m.Name = schema, s.last+1, t.digest, c.Name
	tmp := filepath.Join(s.revisions(), fmt.Sprintf(".%d.new", m.Number))
	if err := s.disk.remove(tmp); err != nil {
		return m, err
	}
	if err := s.disk.mkdir(tmp); err != nil {
		return m, err
	}
	man, before := manifest{Schema: schema}, s.newest()
	add := func(path, stored string, data []byte, of sum) error {
		ref := storedRef{Path: path, Stored: stored, SHA256: hex.EncodeToString(of[:])}
		man.Files = append(man.Files, ref)
		return s.keep(before[ref.SHA256], filepath.Join(tmp, stored), data)
	}
	if err := add("", "config.yaml", c.Bytes, t.sums[0]); err != nil {
		return m, err
	}
	for i, f := range c.Files {
		if err := add(f.Path, safeName(i+1, f.Path), f.Contents, t.sums[1+i]); err != nil {
			return m, err
		}
	}
	for _, j := range []struct {
		name string
		v    any
	}{{"manifest.json", man}, {"meta.json", m}} {
		b, err := encode(j.v)
		if err != nil {
			return m, err
		}
		if err := s.disk.create(filepath.Join(tmp, j.name), b); err != nil {
			return m, err
		}
	}
	if err := s.disk.syncDir(tmp); err != nil {
		return m, err
	}
	// A failure after the rename itself leaves a pending revision, which the next start reverts: the number is gone.
	s.last = m.Number
	if err := s.disk.rename(tmp, s.revision(m.Number)); err != nil {
		return m, err
	}
	s.metas[m.Number] = m
	return m, nil
}

// newest says where the files of the newest revision lie, by their sums. None where it cannot be read.
func (s *Store) newest() map[string]string {
	out := map[string]string{}
	list := s.List()
	if len(list) == 0 {
		return out
	}
	dir := s.revision(list[len(list)-1].Number)
	var man manifest
	if decode(filepath.Join(dir, "manifest.json"), &man) == nil {
		for _, ref := range man.Files {
			out[ref.SHA256] = filepath.Join(dir, filepath.Base(ref.Stored))
		}
	}
	return out
}

// minShared are the bytes from which on two revisions share a file: below, a file of its own costs nothing.
const minShared = 1 << 16

// keep makes a file of a revision. Where one of another revision holds the same, down to the last byte as it can be read
// now, it is that one by another name: it is on the disk already, and nobody ever writes it again.
func (s *Store) keep(same, path string, data []byte) error {
	if same != "" && len(data) >= minShared {
		if holds(same, data) {
			if err := s.disk.link(same, path); !errors.Is(err, errNoLink) {
				return err
			}
		}
	}
	return s.disk.create(path, data)
}

// holds says whether a file is just these bytes.
func holds(path string, data []byte) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	part := make([]byte, minShared)
	for {
		n, err := io.ReadFull(f, part)
		if n > len(data) || !bytes.Equal(part[:n], data[:n]) {
			return false
		}
		data = data[n:]
		if err != nil {
			return len(data) == 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF))
		}
	}
}

// safeName makes a file name out of a path that a user wrote: "set-001-bogons.netset". The number keeps names apart
// that the replacing made equal.
func safeName(i int, path string) string {
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, filepath.Base(path))
	return fmt.Sprintf("set-%03d-%s", i, base[:min(len(base), 64)])
}

// mark changes the status of a revision on the disk.
func (s *Store) mark(n int, status RevisionStatus, reason string) error {
	m, ok := s.metas[n]
	if !ok {
		return fmt.Errorf("revision %d: %w", n, ErrNoRevision)
	}
	m.Status, m.Reason = status, reason
	b, err := encode(m)
	if err != nil {
		return err
	}
	if err := s.disk.replace(filepath.Join(s.revision(n), "meta.json"), b); err != nil {
		return fmt.Errorf("marking revision %d %s: %w", n, status, err)
	}
	s.metas[n] = m
	return nil
}

// load reads a revision back; its Config is not filled in. ErrNoRevision, or errTorn where contents do not match the
// manifest.
func (s *Store) load(n int) (Candidate, []sum, error) {
	m, ok := s.metas[n]
	if !ok {
		return Candidate{}, nil, s.absent(n)
	}
	var sums []sum
	var man manifest
	path := filepath.Join(s.revision(n), "manifest.json")
	if err := decode(path, &man); err != nil {
		return Candidate{}, nil, fmt.Errorf("revision %d: %w", n, err)
	}
	c := Candidate{Name: m.Name, Files: []config.File{}}
	for i, ref := range man.Files {
		data, err := os.ReadFile(filepath.Join(s.revision(n), filepath.Base(ref.Stored)))
		if err != nil {
			return Candidate{}, nil, fmt.Errorf("revision %d: %w: %w", n, errTorn, err)
		}
		sums = append(sums, sha256.Sum256(data))
		if hex.EncodeToString(sums[i][:]) != ref.SHA256 {
			return Candidate{}, nil, fmt.Errorf("revision %d: %s: %w", n, ref.Stored, errTorn)
		}
		if i == 0 {
			c.Bytes = data
		} else {
			c.Files = append(c.Files, config.File{Path: ref.Path, Contents: data})
		}
	}
	if len(sums) == 0 {
		return Candidate{}, nil, fmt.Errorf("revision %d: an empty manifest: %w", n, errTorn)
	}
	d := digest(c.Files, sums)
	if m.Schema == 1 {
		d = formerDigest(c.Bytes, c.Files)
	}
	if d != m.Digest {
		return Candidate{}, nil, fmt.Errorf("revision %d: digest %s, stored as %s: %w", n, d, m.Digest, errTorn)
	}
	return c, sums, nil
}

// confirmed returns the numbers of the confirmed revisions, the newest first.
func (s *Store) confirmed() []int {
	var out []int
	for _, m := range s.metas {
		if m.Status == Confirmed {
			out = append(out, m.Number)
		}
	}
	slices.SortFunc(out, func(a, b int) int { return b - a })
	return out
}
