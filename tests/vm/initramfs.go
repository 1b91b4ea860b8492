package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// buildInitramfs makes the guest's whole file system in dir and returns its path: /init, /payload, /args, /modules/NNN-NAME.ko
// in the order of loading, and g.Files.
func buildInitramfs(ctx context.Context, root, dir string, k kernel, g Guest) (string, error) {
	initPath, payload := filepath.Join(dir, "init"), filepath.Join(dir, "payload-"+strings.ReplaceAll(g.Package, "/", "-"))
	if err := buildOnce(ctx, root, initPath, "build", "sluice/tests/vm/init"); err != nil {
		return "", err
	}
	if err := buildOnce(ctx, root, payload, "test", "-c", "-tags", "vmguest", g.Package); err != nil {
		return "", fmt.Errorf("tests of %s under the tag vmguest: %w", g.Package, err)
	}
	modules, err := resolveModules(ctx, k.modules, g.Modules)
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "initramfs")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	out := bufio.NewWriter(f)
	w := &cpioWriter{w: out, dirs: map[string]bool{"/": true}}
	// The kernel gives init its console only if this node is there.
	w.node("/dev/console", modeChar|0o600, 5, 1)
	w.hostFile("/init", initPath, 0o755)
	w.hostFile("/payload", payload, 0o755)
	w.file("/args", []byte(strings.Join(append([]string{"-test.v"}, g.Args...), "\n")), 0o644)
	for i, m := range modules {
		w.file(fmt.Sprintf("/modules/%03d-%s.ko", i, m.name), m.data, 0o644)
	}
	for _, guest := range slices.Sorted(maps.Keys(g.Files)) {
		w.hostFile(guest, g.Files[guest], 0o755)
	}
	return name, errors.Join(w.finish(), out.Flush(), f.Close())
}

// buildOnce has the go command make a file that is not there.
func buildOnce(ctx context.Context, root, path, verb string, args ...string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := goTool(ctx, root, append([]string{verb, "-o", path}, args...)...); err != nil {
		return err
	}
	_, err := os.Stat(path) // go test -c makes nothing of a package without tests
	return err
}

// The file types of a cpio mode.
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeChar = 0o020000
)

// cpioWriter writes the "newc" format of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst:
// headers of hexadecimal fields, names and data padded to 4 bytes. The first error sticks.
type cpioWriter struct {
	w    io.Writer
	size int64
	ino  int
	dirs map[string]bool
	err  error
}

func (c *cpioWriter) hostFile(name, host string, perm fs.FileMode) {
	data, err := os.ReadFile(host)
	if err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("file %s for the guest: %w", name, err))
		return
	}
	c.file(name, data, perm)
}

func (c *cpioWriter) file(name string, data []byte, perm fs.FileMode) {
	c.parents(name)
	c.entry(name, modeFile|int(perm), 0, 0, data)
}

func (c *cpioWriter) node(name string, mode, major, minor int) {
	c.parents(name)
	c.entry(name, mode, major, minor, nil)
}

// parents writes the directories above name that are not written yet: the kernel makes none by itself.
func (c *cpioWriter) parents(name string) {
	dir := path.Dir(name)
	if c.dirs[dir] {
		return
	}
	c.parents(dir)
	c.dirs[dir] = true
	c.entry(dir, modeDir|0o755, 0, 0, nil)
}

func (c *cpioWriter) finish() error {
	c.entry("/TRAILER!!!", 0, 0, 0, nil)
	return c.err
}

func (c *cpioWriter) entry(name string, mode, major, minor int, data []byte) {
	c.ino++
	name = strings.TrimPrefix(name, "/")
	// magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.write([]byte(header + name + "\x00"))
	c.pad()
	c.write(data)
	c.pad()
}

func (c *cpioWriter) pad() { c.write(make([]byte, (4-c.size%4)%4)) }

func (c *cpioWriter) write(b []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(b)
	c.size += int64(n)
	c.err = err
}
