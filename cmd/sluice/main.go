// Command sluice is the gateway: the daemon, and the verbs that speak to it. This package wires flags and prints; what
// the verbs do stands in control.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"sluice/control/api"
)

// version is set by the build: git describe.
var version = "unknown"

// The exit codes.
const (
	exitDone        = 0
	exitNo          = 1 // the answer is no: a bad file, a failed check, a refused request
	exitUsage       = 2
	exitUnreachable = 3 // no daemon answers
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first Ctrl-C ends what is under way in good order, the second one the process: compiling heeds no context.
	context.AfterFunc(ctx, stop)
	code := newCLI(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run is the whole command: it prints what there is to say and returns the exit code.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	c.complain(err)
	return exitCode(err)
}

// complain prints an error; what is wrong with a file as FILE:LINE:COLUMN: one per line, as compilers do.
func (c *cli) complain(err error) {
	problems := api.Problems(err)
	switch {
	case err == nil, errors.Is(err, errSilent):
	case len(problems) > 0:
		for _, p := range problems {
			fmt.Fprintln(c.err, p)
		}
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(c.err, "sluice: interrupted; `sluice show status` says what stands")
	default:
		fmt.Fprintln(c.err, "sluice: "+err.Error())
	}
}

// errSilent says no without another word: what there was to say is printed.
var errSilent = errors.New("no")

// usageError is a wrong way of calling.
type usageError struct{ error }

func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, api.ErrUnreachable):
		return exitUnreachable
	default:
		return exitNo
	}
}
