package scratch

import (
	"os"
	"testing"
)

// Memory is a TempDir that costs no wait for fsync, where the system has one: for tests that write thousands of files.
func Memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sluice-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
