// Package source finds the configuration that a node image boots with, copies it to where the daemon looks for its FILE, and remembers
// which sources were accepted and which were rejected. What is wrong with a source is told, and ends no boot.
package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/control/disk"
)

// What a medium and a credential hold.
const (
	Label      = "SLUICE-CONFIG" // of the file system of a stick, and of the configuration partition
	fatLabel   = "SLUICE-CONF"   // the same on FAT, which takes 11 characters
	FileName   = "sluice.yaml"
	Credential = "sluice.config" // systemd puts it there from SMBIOS and fw_cfg alike
	keysName   = "keys"          // the directory of key files on a medium
)

// Options say where to look and where to put what was found. Dir and StateDir are needed.
type Options struct {
	Dir         string // where the daemon looks for FILE; replaced as a whole
	StateDir    string
	Credentials string        // $CREDENTIALS_DIRECTORY; "": none were given
	Disk        string        // where the unit that opens the data partition left word; "": there is none
	Wait        time.Duration // how long a stick may take to be seen
	Media       Media
	Log         *slog.Logger
	Now         func() time.Time
}

// Media are file systems with the label.
type Media interface {
	// List returns those that are there now, sorted by path.
	List(ctx context.Context) ([]Medium, error)
	// Open mounts one, never to be written to, and returns the directory.
	Open(m Medium) (dir string, closed func(), err error)
	// Expected says whether sticks may still be on their way.
	Expected() bool
}

// Medium is one file system with the label.
type Medium struct {
	Path   string // of the block device
	Type   string // of the file system
	Stick  bool   // on a removable disk, and not the one that the image is on
	Serves bool   // the image's own configuration partition
}

// Find takes the first source that there is, in the order of the contract: credential, stick, partition. The error is one of writing
// what was found; what is wrong with sources is in the record.
func Find(ctx context.Context, o Options) (Record, error) {
	f := finder{Options: o}
	var found *candidate
	held := f.held()
	if !held {
		if found = f.credential(); found == nil {
			found = f.media(ctx)
		}
	}
	r := Record{Schema: schema, Source: None, At: o.Now().UTC(), Problems: f.problems, Held: held}
	if found != nil {
		r.Source, r.Device, r.Digest, r.Files = found.origin, found.device, found.digest(), found.names()
		r.Problems = append(r.Problems, found.problems...)
	}
	err := stage(o.Dir, found, r)
	if err == nil && found != nil {
		r.Keys, err = found.keep(keysDir(o.StateDir))
		r.Problems = append(r.Problems, found.refused...)
	}
	text := r.encode()
	err = errors.Join(err, disk.Replace(filepath.Join(o.Dir, RecordName), text))
	return r, errors.Join(err, remember(o.StateDir, text))
}

// keysDir is where key files lie; crypto/keys has the same.
func keysDir(stateDir string) string { return filepath.Join(stateDir, keysName) }

// remember leaves the record to who looks after the next boot.
func remember(stateDir string, text []byte) error {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	return disk.Replace(filepath.Join(stateDir, "boot-source.json"), text)
}

type finder struct {
	Options
	problems []string
}

func (f *finder) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	f.Log.Warn("boot configuration", "problem", text)
	f.problems = append(f.problems, text)
}

// held tells what the disk's unit left word of, and whether that is a reason to take no configuration: without the data partition that there
// should be, a node has neither its keys nor its last revision, and would begin anew, unencrypted.
func (f *finder) held() (yes bool) {
	if f.Disk == "" {
		return false
	}
	for _, name := range []string{"held", "notice"} {
		text, err := os.ReadFile(filepath.Join(f.Disk, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.problem("%v", err)
		}
		for line := range strings.Lines(string(text)) {
			f.problem("%s", strings.TrimSpace(line))
			yes = yes || name == "held"
		}
	}
	return yes
}

func (f *finder) credential() *candidate {
	if f.Credentials == "" {
		return nil
	}
	path := filepath.Join(f.Credentials, Credential)
	text, err := readFile(func() (*os.File, error) { return os.OpenFile(path, readOnly, 0) }, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		f.problem("the credential %s is passed over: %v", Credential, err)
		return nil
	}
	return newCandidate(FromCredential, "", text, nil)
}

// media looks for a stick first. Two of them are none: nobody could say which one was meant.
func (f *finder) media(ctx context.Context) *candidate {
	list := f.list(ctx)
	var sticks, partitions []Medium
	for _, m := range list {
		switch {
		case m.Stick:
			sticks = append(sticks, m)
		case m.Serves:
			partitions = append(partitions, m)
		default:
			f.problem("%s has the label %s and is neither on a removable disk nor on this image's: it is passed over", m.Path, Label)
		}
	}
	for _, kind := range []struct {
		origin Origin
		media  []Medium
		many   string
	}{
		{FromStick, sticks, "sticks with the label %s are there (%s): none is taken; leave one"},
		{FromPartition, partitions, "partitions with the label %s are on the image's disks (%s): none is taken; give others another label"},
	} {
		if len(kind.media) > 1 {
			f.problem("several "+kind.many, Label, paths(kind.media))
			continue
		}
		for _, m := range kind.media {
			if c := f.read(kind.origin, m); c != nil {
				return c
			}
		}
	}
	return nil
}

// lookEvery is how often it is looked for a stick that is on its way.
const lookEvery = 250 * time.Millisecond

// list waits for a stick, where there may be one: the kernel finds them seconds after it started.
func (f *finder) list(ctx context.Context) []Medium {
	deadline := time.Now().Add(f.Wait)
	for {
		list, err := f.Media.List(ctx)
		if err != nil {
			f.problem("disks cannot be listed: %v", err)
			return nil
		}
		for _, m := range list {
			if m.Stick {
				return list
			}
		}
		if !f.Media.Expected() || time.Now().After(deadline) {
			return list
		}
		select {
		case <-ctx.Done():
			return list
		case <-time.After(lookEvery):
		}
	}
}

// read takes everything from a medium into memory: it may be pulled at any time.
func (f *finder) read(origin Origin, m Medium) *candidate {
	dir, closed, err := f.Media.Open(m)
	if err != nil {
		f.problem("%s (%s) cannot be read: %v", m.Path, origin, err)
		return nil
	}
	defer closed()
	root, err := os.OpenRoot(dir) // a link on it leads nowhere else
	if err != nil {
		f.problem("%s (%s) cannot be read: %v", m.Path, origin, err)
		return nil
	}
	defer root.Close()
	text, err := readFile(func() (*os.File, error) { return root.OpenFile(FileName, readOnly, 0) }, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && origin == FromPartition:
		return nil // as it came out of the factory
	case errors.Is(err, fs.ErrNotExist):
		f.problem("%s (%s) has no %s and is passed over", m.Path, origin, FileName)
		return nil
	case err != nil:
		f.problem("%s on %s (%s) is passed over: %v", FileName, m.Path, origin, err)
		return nil
	}
	return newCandidate(origin, m.Path, text, root)
}

func paths(media []Medium) string {
	var out string
	for i, m := range media {
		if i > 0 {
			out += ", "
		}
		out += m.Path
	}
	return out
}
