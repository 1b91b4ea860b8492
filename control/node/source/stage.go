package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// RecordName is the file beside FILE that says where FILE came from.
const RecordName = "source.json"

// Origin says where a configuration came from.
type Origin string

// The origins, in the order in which they are looked at.
const (
	FromCredential Origin = "credential" // of SMBIOS or fw_cfg
	FromStick      Origin = "usb"
	FromPartition  Origin = "partition"
	None           Origin = "none"
)

// Record says what was found at this boot.
type Record struct {
	Schema   int       `json:"schema"`
	Source   Origin    `json:"source"`
	Device   string    `json:"device,omitempty"`
	Digest   string    `json:"digest,omitempty"` // SHA-256, hexadecimal; "": there is no file
	Files    []string  `json:"files,omitempty"`  // set files beside the file
	Keys     []string  `json:"keys,omitempty"`   // put into the directory of keys
	Problems []string  `json:"problems,omitempty"`
	Held     bool      `json:"held,omitempty"` // none is taken while the data partition is not open; Problems say why
	At       time.Time `json:"at"`
}

// schema grows when an older binary would misread a file.
const schema = 1

func (r Record) encode() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic(err) // strings, lists and a time
	}
	return append(b, '\n')
}

// ReadRecord reads the record beside FILE in dir. fs.ErrNotExist: this machine does not boot that way.
func ReadRecord(dir string) (Record, error) {
	var r Record
	b, err := os.ReadFile(filepath.Join(dir, RecordName))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", RecordName, err)
	}
	return r, nil
}

// stage puts a candidate in the place of dir: a reader sees the files of the boot before or those of this one, never some of each. nil
// leaves no file there.
func stage(dir string, c *candidate, r Record) error {
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o700)); err != nil {
		return err
	}
	files := map[string][]byte{RecordName: r.encode()}
	if c != nil {
		for name, b := range c.sets {
			files[name] = b
		}
		files[FileName] = c.text
	}
	root, err := os.OpenRoot(fresh)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, b := range files {
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := root.WriteFile(name, b, 0o600); err != nil {
			return err
		}
	}
	err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Rename(fresh, dir)
	}
	return errors.Join(err, os.RemoveAll(fresh))
}
