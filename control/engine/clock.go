package engine

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the time of the machine. Deadlines of pending revisions are kept on Boot, because the wall clock of a box
// without a battery jumps when NTP first answers, and because the monotonic clock stands still while suspended.
type Clock interface {
	// Now is the wall clock: for showing, and for what outlives a boot.
	Now() time.Time
	// Boot is CLOCK_BOOTTIME. It compares only with values of the same BootID.
	Boot() time.Duration
	// BootID is another string after each boot.
	BootID() string
	// After is time.After.
	After(d time.Duration) <-chan time.Time
}

type systemClock struct{ bootID string }

// SystemClock returns the kernel's clocks. It fails where /proc is missing.
func SystemClock() (Clock, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	id, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the boot id (is /proc mounted?): %w", err)
	}
	return systemClock{bootID: strings.TrimSpace(string(id))}, nil
}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Boot() time.Duration {
	var ts unix.Timespec
	// Cannot fail: the clock exists since Linux 2.6.39 and ts is ours.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

func (c systemClock) BootID() string { return c.bootID }

func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
