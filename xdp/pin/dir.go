// Package pin keeps BPF objects alive in a bpffs directory, so that the data path outlives the daemon and the next one
// finds it again. The XDP and the tc subsystem share one directory:
//
//	maps/<name>-v<version>            state that outlives generations; the version is that of its layout
//	maps/<name>-v<version>-former-<id>  one that another took the place of, until its entries were taken over
//	links/<kind>/<interface>          the link that holds a root on its hook
//	slots/<kind>/<interface>          the PROG_ARRAY that this root tail-calls
//	gen/<owner>-<digest>/prog-<name>  a generation: its programs, and the maps that somebody reads from outside
//	gen/<owner>-<digest>/map-<name>
//	sockets/<socket>/<interface>      the XSKMAP that a bypass program registers with, by receive queue
//	traces/<name>                     the link of a tracepoint program
//
// What takes several pins is made under another name and renamed, so that a crash never leaves a half that looks whole.
package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNotBPFFS says that a directory is not on a BPF filesystem.
var ErrNotBPFFS = errors.New("not on a BPF filesystem")

const (
	mapsDir  = "maps"
	linksDir = "links"
	slotsDir = "slots"
	gensDir  = "gen"

	socketsDir = "sockets"
	tracesDir  = "traces"
)

// Dir is an open directory of pins. It holds no descriptor and may be opened many times.
type Dir struct{ path string }

// Prepare makes path (mode 0700) where it is missing. It refuses, with ErrNotBPFFS, a path that is not on a BPF
// filesystem, and then leaves nothing behind.
func Prepare(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("bpf_dir %q: want an absolute path, such as /sys/fs/bpf/sluice", path)
	}
	if err := requireBPFFS(path); err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("bpf_dir: %w", err)
	}
	return nil
}

// Open prepares path and makes its rooms (mode 0700) where they are missing.
func Open(path string) (*Dir, error) {
	if err := Prepare(path); err != nil {
		return nil, err
	}
	d := &Dir{path: filepath.Clean(path)}
	for _, room := range []string{"", mapsDir, linksDir, slotsDir, gensDir, socketsDir, tracesDir} {
		if err := os.MkdirAll(filepath.Join(d.path, room), 0o700); err != nil {
			return nil, fmt.Errorf("bpf_dir: %w", err)
		}
	}
	// A directory that was there already may be wider open than ours.
	if err := os.Chmod(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("bpf_dir: %w", err)
	}
	return d, nil
}

// At names a directory of pins without making or checking it, for who only reads: where nothing is, nothing is found.
func At(path string) *Dir { return &Dir{path: filepath.Clean(path)} }

// requireBPFFS looks at the nearest ancestor that exists.
func requireBPFFS(path string) error {
	var stat unix.Statfs_t
	for at := filepath.Clean(path); ; at = filepath.Dir(at) {
		err := unix.Statfs(at, &stat)
		if errors.Is(err, unix.ENOENT) && at != "/" {
			continue
		}
		if err != nil {
			return fmt.Errorf("bpf_dir %s: %w", path, err)
		}
		// The conversion keeps the low 32 bits: Type is signed and of another width on some architectures.
		if uint32(stat.Type) != unix.BPF_FS_MAGIC {
			return fmt.Errorf("bpf_dir %s: %s is %w: run `mount -t bpf bpf /sys/fs/bpf`, or name a directory on one",
				path, at, ErrNotBPFFS)
		}
		return nil
	}
}

// Path is where d stands.
func (d *Dir) Path() string { return d.path }

// RemoveAll detaches every link and removes every pin, those of other owners included, and the directory itself.
func (d *Dir) RemoveAll() error {
	hooks, err := d.Hooks("")
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range hooks {
		errs = append(errs, d.RemoveHook(h))
	}
	if err := os.RemoveAll(d.path); !errors.Is(err, unix.EBUSY) { // which it is where a bpffs of its own is mounted
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// RemoveIfUnused removes everything once no hook is left: the last subsystem that goes takes the shared maps along.
func (d *Dir) RemoveIfUnused() error {
	hooks, err := d.Hooks("")
	if err != nil || len(hooks) > 0 {
		return err
	}
	return d.RemoveAll()
}

// removePin removes one pin, which may be gone already.
func removePin(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// names lists a directory, which may not be there.
func names(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]string, len(entries)) // sorted: ReadDir's promise
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out, nil
}
