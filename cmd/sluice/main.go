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

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := newCLI(os.Stdout, os.Stderr)
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil || errors.Is(err, errSilent):
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(c.err, "sluice: interrupted; `sluice show status` says what stands")
	default:
		fmt.Fprintln(c.err, "sluice: "+err.Error())
	}
	return exitCode(err)
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
