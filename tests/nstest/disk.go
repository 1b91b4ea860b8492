package nstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is a small file system in memory that can be full, or read-only. It is mounted nowhere, so it goes with this process, however that ends;
// other processes get to it by Dir as well.
type Disk struct {
	Dir  string
	file *os.File
}

// NewDisk makes an empty one.
func NewDisk(t testing.TB, kilobytes int) *Disk {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	err = errors.Join(unix.FsconfigSetString(fs, "size", fmt.Sprintf("%dk", kilobytes)), unix.FsconfigSetString(fs, "mode", "0700"), unix.FsconfigCreate(fs))
	if err != nil {
		t.Fatal(err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := &Disk{file: os.NewFile(uintptr(mount), "tmpfs")}
	t.Cleanup(func() { _ = d.file.Close() })
	d.Dir = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), mount)
	return d
}

const filler = "filler"

// Fill takes all room that is left.
func (d *Disk) Fill(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(d.Dir, filler), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := []byte(strings.Repeat("x", os.Getpagesize()))
	for err == nil {
		_, err = f.Write(page)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// Free gives back what Fill took.
func (d *Disk) Free(t testing.TB) {
	t.Helper()
	if err := os.Remove(filepath.Join(d.Dir, filler)); err != nil {
		t.Fatal(err)
	}
}

// ReadOnly has it take nothing more and let nothing go, or makes it as before.
func (d *Disk) ReadOnly(t testing.TB, yes bool) {
	t.Helper()
	a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if !yes {
		a = unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	}
	if err := unix.MountSetattr(int(d.file.Fd()), "", unix.AT_EMPTY_PATH, &a); err != nil {
		t.Fatal(err)
	}
}
