package ban

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/control/disk"
)

// The journal holds what changed since the file was written: a line for each ban or unban, with a checksum in front.
// Appending is a write into the page cache, so it costs its caller microseconds and outlives a kill; it is on the disk
// once the writer has synced it. While the file is written anew, what it will hold is in a second journal, with old in
// its name. Replaying a journal over a file that has it already changes nothing: the last line about a target decides.
type journal struct {
	path  string
	file  *os.File // nil: not open
	lines int      // written since it was begun
}

// change is one line.
type change struct {
	Ban   *record      `json:"ban,omitempty"`
	Unban netip.Prefix `json:"unban,omitzero"`
}

func (c change) target() netip.Prefix {
	if c.Ban != nil {
		return c.Ban.Target
	}
	return c.Unban
}

func (j *journal) old() string { return j.path + ".old" }

// append writes changes in one go. After an error some of them may be in it.
func (j *journal) append(changes []change) error {
	var out bytes.Buffer
	for _, c := range changes {
		text, err := json.Marshal(c)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%08x %s\n", crc32.ChecksumIEEE(text), text)
	}
	if j.file == nil {
		if err := j.open(); err != nil {
			return err
		}
	}
	_, err := j.file.Write(out.Bytes())
	j.lines += len(changes)
	if err != nil { // open() ends the line that this may have torn
		err = errors.Join(err, j.file.Close())
		j.file = nil
	}
	return err
}

// open continues the journal. A line that a power cut tore is ended, or the next one would be a part of it.
func (j *journal) open() error {
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err != nil || info.Size() > 0 {
		if _, bad := f.WriteString("\n"); err != nil || bad != nil {
			return errors.Join(err, bad, f.Close())
		}
	}
	j.file = f
	return nil
}

// turn sets the journal aside before the file is written anew, unless one is aside from a time when that failed.
func (j *journal) turn() error {
	if _, err := os.Lstat(j.old()); err == nil {
		return nil
	}
	if err := os.Rename(j.path, j.old()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return j.close()
}

func (j *journal) close() error {
	f := j.file
	j.file, j.lines = nil, 0
	if f == nil {
		return nil
	}
	return f.Close()
}

// written forgets what was set aside: the file has it.
func (j *journal) written() error {
	if err := os.Remove(j.old()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sync brings what was appended onto the disk. f is the journal's file of a moment before.
func (j *journal) sync(f *os.File) error {
	if f == nil {
		return nil
	}
	err := f.Sync()
	if errors.Is(err, os.ErrClosed) {
		return nil // it was set aside, and the file has it or will
	}
	return errors.Join(err, disk.SyncDir(filepath.Dir(j.path)))
}

// replay brings records up to date with both journals. Lines that are not as they were written are counted.
func (j *journal) replay(records []record) (out []record, damaged int, err error) {
	last := map[netip.Prefix]*record{}
	var order []netip.Prefix
	put := func(p netip.Prefix, r *record) {
		if _, known := last[p]; !known {
			order = append(order, p)
		}
		last[p] = r
	}
	for i := range records {
		put(records[i].Target, &records[i])
	}
	for _, path := range []string{j.old(), j.path} {
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, 0, err
		}
		for line := range strings.Lines(string(data)) {
			if line == "\n" {
				continue
			}
			c, ok := parseChange(line)
			if !ok {
				damaged++
				continue
			}
			put(c.target(), c.Ban)
		}
	}
	for _, p := range order {
		if last[p] != nil {
			out = append(out, *last[p])
		}
	}
	return out, damaged, nil
}

func parseChange(line string) (c change, ok bool) {
	sum, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	want, err := strconv.ParseUint(sum, 16, 32)
	if !ok || err != nil || crc32.ChecksumIEEE([]byte(text)) != uint32(want) || json.Unmarshal([]byte(text), &c) != nil {
		return c, false
	}
	return c, isTarget(c.target())
}
