package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sluice/cmd/lab"
)

// directory is set in the process that runs the tests: what all of them share is there.
const directory = "SLUICE_E2E_DIRECTORY"

// sites is how many tests run side by side: they wait for timers and sessions most of the time.
const sites = 4

func binary() string  { return filepath.Join(os.Getenv(directory), "sluice") }
func labsDir() string { return filepath.Join(os.Getenv(directory), "labs") }

// TestMain builds the binary once and runs the tests in a child, so that the namespaces of a child that panics, runs out
// of time or is killed are removed all the same.
func TestMain(m *testing.M) {
	if os.Getenv(directory) != "" {
		os.Exit(m.Run())
	}
	code, err := supervise()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests/netns:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func supervise() (code int, err error) {
	dir, err := os.MkdirTemp("", "e2e") // short: a socket's path holds 107 bytes
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Setenv(directory, dir); err != nil {
		return 1, err
	}
	// Who is not root must be able to run the binary, to be refused by it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	build := exec.CommandContext(ctx, "go", "build", "-o", binary(), "sluice/cmd/sluice")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if said, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the binary: %w\n%s", err, said)
	}
	defer func() { // the owner of these labs is dead: none is spared
		_, down := lab.Down(labsDir())
		err = errors.Join(err, down, dirs.Sweep())
	}()
	args := os.Args[1:]
	if !slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "test.parallel") }) {
		args = append([]string{fmt.Sprintf("-test.parallel=%d", sites)}, args...)
	}
	child := exec.CommandContext(ctx, os.Args[0], args...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := child.Run(); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	} else if err != nil {
		return 1, err
	}
	return 0, nil
}
