//go:build vmguest

package site

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const bootID = "/proc/sys/kernel/random/boot_id"

// newBootID lays another id over the kernel's. It stays, as that of a boot does.
func (s *site) newBootID() {
	s.t.Helper()
	s.boots++
	file := filepath.Join(s.Dir, "boot_id")
	if err := os.WriteFile(file, fmt.Appendf(nil, "5f1c3b2a-0000-4000-8000-%012d\n", s.boots), 0o444); err != nil {
		s.t.Fatal(err)
	}
	if s.boots > 1 {
		return
	}
	if err := unix.Mount(file, bootID, "", unix.MS_BIND, ""); err != nil {
		s.t.Fatal(err)
	}
}

// kernelsBootID takes what newBootID laid over it away.
func (s *site) kernelsBootID() error {
	if s.boots == 0 {
		return nil
	}
	return unix.Unmount(bootID, 0)
}
