// Command gate runs `go test -json` and judges the result more strictly than go does: a skipped test, a test that never
// reported, a package whose tests did not run, and a run without any test are failures. The last line it prints is
// 'N passed, N failed', with ', N skipped' where there were any.
//
//	gate [-summary FILE] -- [go test flags] packages
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// grace is how long tests get to clean up their namespaces after an interrupt.
const grace = 30 * time.Second

func main() {
	flags := flag.NewFlagSet("gate", flag.ExitOnError)
	summary := flags.String("summary", "", "also write the last line to `FILE`")
	_ = flags.Parse(os.Args[1:])

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	tally, err := run(ctx, "", flags.Args(), os.Stdout)
	if err != nil {
		tally.Fault("go test", err.Error())
	}
	tally.Report()
	if *summary != "" {
		if err := os.WriteFile(*summary, []byte(tally.Summary()+"\n"), 0o644); err != nil {
			fmt.Fprintf(os.Stderr, "gate: the summary could not be kept: %v\n", err)
			os.Exit(1)
		}
	}
	if !tally.OK() {
		os.Exit(1)
	}
}

// run runs go test in dir (empty: here) and tallies what it says. The error is that of the go command itself, and is nil
// where a failure of a test explains its exit code.
func run(ctx context.Context, dir string, args []string, out io.Writer) (*Tally, error) {
	tally := NewTally(out)
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-count=1"}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = grace
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return tally, err
	}
	if err := cmd.Start(); err != nil {
		return tally, fmt.Errorf("start the go command: %w", err)
	}
	readErr := tally.Read(stdout)
	waitErr := cmd.Wait()
	if readErr != nil {
		return tally, fmt.Errorf("read the events of go test: %w", readErr)
	}
	if waitErr != nil && tally.failed == 0 {
		return tally, waitErr
	}
	return tally, nil
}
