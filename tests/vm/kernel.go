package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// metaPackage always depends on the newest 6.12 kernel that apt offers. The floor is 6.6, the reference 6.12.
const metaPackage = "linux-image-6.12-amd64"

// kernel is an unpacked kernel package.
type kernel struct {
	image   string // vmlinuz
	modules string // .../lib/modules/RELEASE
}

// obtainKernel downloads and unpacks the kernel into a directory of cache, once per version. Without apt's lists or
// the network, a kernel that is cached already serves.
func obtainKernel(ctx context.Context, cache string) (kernel, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return kernel{}, err
	}
	defer unlock()
	name, err := packageName(ctx)
	if err == nil {
		dir := filepath.Join(cache, name)
		if err = unpackOnce(ctx, name, dir); err == nil {
			return openKernel(dir)
		}
	}
	cached, _ := filepath.Glob(filepath.Join(cache, "linux-image-6.12.*"))
	if len(cached) > 0 {
		return openKernel(cached[len(cached)-1])
	}
	return kernel{}, err
}

// lock keeps test binaries that run side by side from downloading at once. It is held by the open file.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

var dependsLine = regexp.MustCompile(`(?m)^\s*Depends: (linux-image-6\.12\.\S+)$`)

func packageName(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", metaPackage).CombinedOutput()
	if m := dependsLine.FindSubmatch(out); err == nil && m != nil {
		return string(m[1]), nil
	}
	return "", fmt.Errorf("apt offers no package %s; run: apt-get update\n%s", metaPackage, out)
}

// unpackOnce unpacks beside dir and renames, so that dir is whole if it is there.
func unpackOnce(ctx context.Context, name, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := command(ctx, work, "apt-get", "-qq", "download", name); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", name, len(debs))
	}
	tree := filepath.Join(work, "tree")
	if err := command(ctx, work, "dpkg", "-x", debs[0], tree); err != nil {
		return err
	}
	return os.Rename(tree, dir)
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func openKernel(dir string) (kernel, error) {
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(dir, "lib", "modules", "*"))
	if modules == nil {
		modules, _ = filepath.Glob(filepath.Join(dir, "usr", "lib", "modules", "*"))
	}
	if len(images) != 1 || len(modules) != 1 {
		return kernel{}, errors.New(dir + " holds no kernel: remove it and run again")
	}
	return kernel{image: images[0], modules: modules[0]}, nil
}
