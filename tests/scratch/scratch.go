// Package scratch gives tests directories: one that the next run removes where a test binary was killed, and one in memory.
package scratch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir makes the process's directory of that name, and removes those of processes that are no more.
func Dir(name string) (string, error) {
	dir := place(name, os.Getpid())
	return dir, errors.Join(sweep(name), os.MkdirAll(dir, 0o700))
}

func place(name string, pid int) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("%s-%d", name, pid))
}

// sweep removes what processes left that were killed or ran out of time.
func sweep(name string) error {
	const any = 0
	pattern := strings.TrimSuffix(place(name, any), strconv.Itoa(any))
	left, err := filepath.Glob(pattern + "*")
	errs := []error{err}
	for _, path := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(path, pattern))
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}
