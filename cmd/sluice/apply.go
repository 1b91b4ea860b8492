package main

import (
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/control/daemon"
)

func (c *cli) applyCmd() *cobra.Command {
	var confirm time.Duration
	var message string
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make the file the machine's configuration",
		Long: `Make the file the machine's configuration, all of it or nothing. With --confirm the machine goes back by itself
unless ` + "`sluice confirm`" + ` comes in time; while it waits, another apply --confirm starts the clock again. Without it,
a file that has apply.checks is watched for 30 seconds, and apply waits for the outcome; Ctrl-C ends the waiting only.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := positive(cmd, confirm); err != nil {
				return err
			}
			candidate, err := daemon.Load(c.file)
			if err != nil {
				return err
			}
			result, err := c.client().Apply(cmd.Context(), api.ApplyRequest{
				Candidate: candidate, ConfirmSeconds: confirm.Seconds(), Message: message, Author: author(),
			})
			if err != nil {
				return err
			}
			return c.printResult(result)
		},
	}
	c.fileFlag(cmd)
	cmd.Flags().DurationVar(&confirm, "confirm", 0, "go back after this `TIME`, such as 2m, unless confirmed")
	cmd.Flags().StringVarP(&message, "message", "m", "", "`WHY`, for the history")
	return cmd
}

// positive refuses a --confirm that would go back at once.
func positive(cmd *cobra.Command, confirm time.Duration) error {
	if confirm < 0 || cmd.Flags().Changed("confirm") && confirm == 0 {
		return usageError{fmt.Errorf("--confirm %s: give a positive time, such as 2m", confirm)}
	}
	return nil
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
	case r.Unchanged && r.Pending != nil:
		fmt.Fprintf(c.out, "revision %d is live already; its clock starts again\n", r.Revision)
	case r.Unchanged:
		fmt.Fprintf(c.out, "nothing to do: revision %d stands\n", r.Revision)
	default:
		fmt.Fprintf(c.out, "revision %d is live, %s\n", r.Revision, counted(len(r.Plan.Steps), "step"))
	}
	for _, w := range r.Plan.Warnings {
		fmt.Fprintf(c.out, "warning: %s\n", w)
	}
	if p := r.Pending; p != nil {
		left := time.Duration(p.Remaining * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(c.out, "it goes back to %s in %s unless you run: sluice confirm\n", revisionText(p.Base), left)
	}
	return nil
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func revisionText(n int) string {
	if n == 0 {
		return "nothing"
	}
	return fmt.Sprintf("revision %d", n)
}
