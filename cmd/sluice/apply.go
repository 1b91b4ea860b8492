package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/control/daemon"
	"sluice/plural"
)

func (c *cli) applyCmd() *cobra.Command {
	var confirm lifetime
	var message string
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make the file the machine's configuration",
		Long: `All of it or nothing. With --confirm the machine goes back by itself
unless ` + "`sluice confirm`" + ` comes in time; while it waits, another apply --confirm starts the clock again. Where the file
has apply.checks the machine goes back as soon as one of them fails; without --confirm the verb watches them for 30 s
before it ends. Ctrl-C then ends the waiting only; before, the apply.

Exit code 1 where the file is refused or the machine went back: what was live before is live again.`,
		Example: `  sluice apply -c new.yaml --confirm 2m -m 'open port 443'
  sluice apply -c new.yaml                             # no way back but rollback`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			candidate, judge, err := daemon.Collect(c.file)
			if err != nil {
				return err
			}
			told := c.tellOfChecks(cmd.Context())
			result, err := c.client().Apply(cmd.Context(), api.ApplyRequest{
				Candidate: candidate, ConfirmSeconds: confirm.seconds(), Message: message, Author: author(),
			})
			told()
			if err != nil {
				return refusal(err, judge)
			}
			return c.printResult(result)
		},
	}
	c.fileFlag(cmd)
	applyFlags(cmd, &confirm, &message)
	return cmd
}

// refusal is why a candidate did not become what was asked for: what is wrong with the file in this program's words, where
// that may be why.
func refusal(err error, judge func() error) error {
	if !errors.Is(err, api.ErrUnreachable) && api.Problems(err) == nil {
		return err
	}
	if wrong := judge(); wrong != nil {
		return wrong
	}
	return err
}

// checksAskedEvery is how often a verb that makes a revision looks whether it waits for apply.checks only.
const checksAskedEvery = time.Second

// tellOfChecks says, where a verb waits for the checks of a revision that is live already, that it does: else the terminal
// would be silent for half a minute. What it returns ends that.
func (c *cli) tellOfChecks(ctx context.Context) (end func()) {
	if c.json() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	client := c.client()
	var asking sync.WaitGroup
	asking.Go(func() {
		tick := time.NewTicker(checksAskedEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s, err := api.Show[api.Status](ctx, client, "status")
			if err != nil || s.Engine.Pending == nil || s.Engine.Pending.Confirm {
				continue
			}
			p := s.Engine.Pending
			fmt.Fprintf(c.err, "revision %d is live; its checks are watched for %s more: Ctrl-C ends the waiting only\n", p.Revision, secondsText(p.Remaining))
			return
		}
	})
	return func() {
		cancel()
		asking.Wait()
	}
}

// applyFlags are those of everything that makes a revision.
func applyFlags(cmd *cobra.Command, confirm *lifetime, message *string) {
	cmd.Flags().Var(confirm, "confirm", "go back after this `TIME`, such as 2m, unless confirmed")
	cmd.Flags().StringVarP(message, "message", "m", "", "say `WHY`: history shows it")
}

// author names who asks: the login behind a sudo, else the user.
func author() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

func (c *cli) printResult(r api.Result) error {
	if c.json() {
		return c.printJSON(r)
	}
	switch {
	case r.WentBack != 0:
		fmt.Fprintf(c.out, "revision %d was not confirmed and is taken back: %s is live\n", r.WentBack, revisionText(r.Revision))
	case r.Unchanged && r.Pending != nil:
		fmt.Fprintf(c.out, "revision %d is live already; its clock starts again\n", r.Revision)
	case r.Unchanged:
		fmt.Fprintf(c.out, "nothing to do: revision %d stands\n", r.Revision)
	default:
		fmt.Fprintf(c.out, "revision %d is live, %s\n", r.Revision, plural.Of(len(r.Plan.Steps), "step", "steps"))
	}
	c.printMended(r)
	for _, w := range r.Plan.Warnings {
		fmt.Fprintf(c.out, "warning: %s\n", w)
	}
	if p := r.Pending; p != nil {
		fmt.Fprintf(c.out, "it goes back to %s in %s unless you run: sluice confirm\n", revisionText(p.Base), secondsText(p.Remaining))
	}
	return nil
}

// maxMended bounds how many steps the text names.
const maxMended = 10

// printMended names what was done that the file did not ask for.
func (c *cli) printMended(r api.Result) {
	m := r.Mended
	switch {
	case m == nil:
		return
	case r.Unchanged:
		fmt.Fprintf(c.out, "at %s (%s) the daemon did by itself:\n", m.At.Local().Format(time.DateTime), m.Why)
	default:
		fmt.Fprintln(c.out, "the file is as before; what differed on the machine is mended:")
	}
	for _, step := range m.Steps[:min(len(m.Steps), maxMended)] {
		fmt.Fprintf(c.out, "  %s\n", step)
	}
	if more := len(m.Steps) - maxMended; more > 0 {
		fmt.Fprintf(c.out, "  and %d more\n", more)
	}
}

// secondsText is a duration of the API as an operator reads it.
func secondsText(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

func revisionText(n int) string {
	if n == 0 {
		return "nothing"
	}
	return fmt.Sprintf("revision %d", n)
}
