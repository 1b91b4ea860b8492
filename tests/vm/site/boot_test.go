//go:build vmguest

package site

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// newBootID lays another id over the kernel's, until the test ends.
func (s *site) newBootID() {
	s.t.Helper()
	const place = "/proc/sys/kernel/random/boot_id"
	file := filepath.Join(s.Dir, "boot_id")
	if err := os.WriteFile(file, []byte("5f1c3b2a-0000-4000-8000-00000000b007\n"), 0o444); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Mount(file, place, "", unix.MS_BIND, ""); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := unix.Unmount(place, 0); err != nil {
			s.t.Error(err)
		}
	})
}
