package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// disk makes every change to the state directory, each of them durable when it returns. before is called ahead of each
// system call that changes something; tests crash or fail there.
type disk struct {
	before func(op, path string) error
}

func (d disk) ask(op, path string) error {
	if d.before == nil {
		return nil
	}
	return d.before(op, path)
}

// create writes a new file and its contents to the disk. Its name is durable only after syncDir of its directory.
func (d disk) create(path string, data []byte) (err error) {
	if err := d.ask("create", path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := d.ask("write", path); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// extend adds data to the end of a file: after a crash some of it may be there.
func (d disk) extend(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := d.ask("extend", path); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// errNoLink: the filesystem has no second names for files, or not for this one.
var errNoLink = errors.New("no link")

// link gives a file another name, which is durable only after syncDir of its directory.
func (d disk) link(from, to string) error {
	if err := d.ask("link", to); err != nil {
		return err
	}
	if err := os.Link(from, to); err != nil {
		return fmt.Errorf("%w: %w", errNoLink, err)
	}
	return nil
}

// replace puts data in the place of path: a reader, also one after a crash, sees the old contents or the new ones.
func (d disk) replace(path string, data []byte) error {
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	// What a crash left; the lock on the state directory makes it ours.
	if err := d.remove(fresh); err != nil {
		return err
	}
	if err := d.create(fresh, data); err != nil {
		return err
	}
	return d.rename(fresh, path)
}

func (d disk) rename(from, to string) error {
	if err := d.ask("rename", to); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(to))
}

func (d disk) mkdir(path string) error {
	if err := d.ask("mkdir", path); err != nil {
		return err
	}
	return os.MkdirAll(path, 0o700)
}

// remove takes a file or a tree away; one that is not there is no error.
func (d disk) remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.ask("remove", path); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

func (d disk) syncDir(path string) (err error) {
	if err := d.ask("sync", path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Sync()
}

// encode is how every JSON file of the state directory is written.
func encode(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

// schema is the version of what is written under state_dir. It grows when an older binary would misread a file. disk.Format grows with it.
//
//   - 2: the digest of a revision is one over sums.
//   - 3: a journal goes on from the rule ids.
const schema = 3

// ErrNewerSchema says that a newer sluice wrote the state directory; nothing was changed in it.
var ErrNewerSchema = errors.New("written by a newer sluice")

// errTorn marks a file whose contents are not what was once written.
var errTorn = errors.New("torn or damaged")

// decode reads a JSON file into v. errTorn: it is no whole JSON. A file of a newer schema is refused before anything
// else of it is believed.
func decode(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err != nil || head.Schema < 1 {
		return fmt.Errorf("%s: %w", path, errTorn)
	}
	if head.Schema > schema {
		return fmt.Errorf("%s: %w (schema %d, this one knows %d): start that version again, or give this one another state_dir",
			path, ErrNewerSchema, head.Schema, schema)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w: %w", path, errTorn, err)
	}
	return nil
}
