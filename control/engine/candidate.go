package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"

	"sluice/control/config"
)

// Candidate is a configuration that parsed and asks to be planned or applied.
type Candidate struct {
	Name   string        // of FILE, for messages and positions
	Bytes  []byte        // FILE as written
	Files  []config.File // set files; nil: those of Config
	Config *config.Config
}

func (c Candidate) files() []config.File {
	if c.Files == nil && c.Config != nil {
		return c.Config.Files
	}
	return c.Files
}

// Source is FILE as it lies on the disk now, parsed or not.
type Source struct {
	Name     string
	Bytes    []byte
	ReadFile func(path string) ([]byte, error) // set files, by the path that FILE writes
}

// ParseFunc checks the bytes of a configuration; config.Parse behind a small adapter.
type ParseFunc func(name string, data []byte, read func(string) ([]byte, error)) (*config.Config, error)

// sum is a SHA-256.
type sum = [sha256.Size]byte

// sums are those of FILE and of every set file, in this order. What before holds as well is not read for it again: there
// may be megabytes, and comparing costs a tenth of hashing.
func (c Candidate) sums(before *target) (sums []sum, states []hashStates) {
	files := c.files()
	add := func(data []byte, n int) {
		var former []byte
		var known hashStates
		if n >= 0 && n < len(before.sums) {
			if former = before.content.Bytes; n > 0 {
				former = before.content.Files[n-1].Contents
			}
			if bytes.Equal(data, former) {
				sums, states = append(sums, before.sums[n]), append(states, before.statesOf(n))
				return
			}
			known = before.statesOf(n)
		}
		of, at := sumLike(data, former, known)
		sums, states = append(sums, of), append(states, at)
	}
	add(c.Bytes, 0)
	for _, f := range files {
		n := slices.IndexFunc(before.content.Files, func(b config.File) bool { return b.Path == f.Path })
		if n >= 0 {
			n++
		}
		add(f.Contents, n)
	}
	return sums, states
}

// hashStates are those of a SHA-256 behind each whole stateEvery bytes of what it read: where other contents begin with the same,
// their sum goes on from there.
type hashStates [][]byte

const stateEvery = 1 << 20

// statesOf are those of FILE, 0, or of a set file. None are known of what was read back from the disk.
func (t *target) statesOf(n int) hashStates {
	if n < len(t.states) {
		return t.states[n]
	}
	return nil
}

// sumLike is the sum of data, for who knows the states of a former content.
func sumLike(data, former []byte, known hashStates) (of sum, states hashStates) {
	part := func(of []byte, n int) []byte { return of[n*stateEvery : min((n+1)*stateEvery, len(of))] }
	n := 0
	for n < len(known) && (n+1)*stateEvery <= len(data) && bytes.Equal(part(data, n), part(former, n)) {
		n++
	}
	h := sha256.New()
	states = slices.Clone(known[:n])
	if n > 0 && h.(encoding.BinaryUnmarshaler).UnmarshalBinary(known[n-1]) != nil { // of this process, so that it fits
		h.Reset()
		n, states = 0, nil
	}
	for ; n*stateEvery < len(data); n++ {
		_, _ = h.Write(part(data, n)) // a hash takes everything
		if state, err := h.(encoding.BinaryMarshaler).MarshalBinary(); err == nil && (n+1)*stateEvery <= len(data) {
			states = append(states, state)
		}
	}
	return sum(h.Sum(nil)), states
}

// digest identifies what was applied: FILE's bytes and every set file by its written path. FILE's own name is not part
// of it.
func digest(files []config.File, sums []sum) string {
	h := sha256.New()
	h.Write(sums[0][:])
	for i, f := range files {
		var n [8]byte // so that no two inputs run together
		binary.BigEndian.PutUint64(n[:], uint64(len(f.Path)))
		h.Write(n[:])
		h.Write([]byte(f.Path))
		h.Write(sums[1+i][:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// identity says what a candidate is, and which of its set files are others than before.
type identity struct {
	sums     []sum
	states   []hashStates
	digest   string
	setFiles []string
}

func identify(c Candidate, before *target) identity {
	var of identity
	of.sums, of.states = c.sums(before)
	of.digest = digest(c.files(), of.sums)
	of.setFiles = otherFiles(before, c.files(), of.sums)
	return of
}

// formerDigest is that of revisions of schema 1: over the contents themselves, each with its length in front.
func formerDigest(data []byte, files []config.File) string {
	h := sha256.New()
	put := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	put(data)
	for _, f := range files {
		put([]byte(f.Path))
		put(f.Contents)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// otherFiles are the set files of both whose contents differ, sorted as now is; sums are those of FILE and of now.
func otherFiles(before *target, now []config.File, sums []sum) []string {
	var out []string
	for n, f := range now {
		for m, old := range before.content.Files {
			if old.Path == f.Path && 1+m < len(before.sums) && before.sums[1+m] != sums[1+n] {
				out = append(out, f.Path)
			}
		}
	}
	return out
}

// readFrom answers a parser's wish for set files from contents in memory.
func readFrom(files []config.File) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		for _, f := range files {
			if f.Path == path {
				return bytes.Clone(f.Contents), nil
			}
		}
		return nil, fmt.Errorf("%s: not stored with the revision: %w", path, fs.ErrNotExist)
	}
}
