package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
)

func (c *cli) drainCmd() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Take this box out of traffic: announce everything as the last choice, then nothing",
		Long: `Everything is announced with the community GRACEFUL_SHUTDOWN (RFC 8326), on which neighbors move to other paths if they have
some; after the wait everything is withdrawn. Sessions stay, and what comes in still is still forwarded. A drain outlives a restart and a
reboot, and apply and rollback leave it alone: sluice undrain ends it. The command returns when everything is withdrawn.`,
		Example: "  sluice drain\n  sluice drain --wait 2m\n  sluice drain --wait 0s                             # at once; also sooner than a drain under way",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait < 0 {
				return usageError{fmt.Errorf("--wait %s: say 0s or more", wait)}
			}
			done, err := c.client().Drain(cmd.Context(), api.DrainRequest{WaitSeconds: wait.Seconds(), By: author()})
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(done)
			}
			fmt.Fprintln(c.out, "drained: everything is withdrawn; `sluice undrain` announces it again")
			fmt.Fprint(c.out, unkeptText(done))
			return nil
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long `DURATION` neighbors have to move to other paths")
	return cmd
}

func (c *cli) undrainCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "undrain",
		Short:   "Announce everything again as the file says: the end of a drain",
		Example: "  sluice undrain",
		RunE: func(cmd *cobra.Command, _ []string) error {
			before, err := c.client().Undrain(cmd.Context())
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(before)
			}
			if before.State == api.DrainNone {
				fmt.Fprintln(c.out, "not drained: nothing to do")
				return nil
			}
			fmt.Fprintln(c.out, "not drained any more: everything is announced as the file says")
			fmt.Fprint(c.out, unkeptText(before))
			return nil
		},
	}
}

// unkeptText warns of a disk that could not take what is so now.
func unkeptText(d api.Drain) string {
	if !d.Unkept {
		return ""
	}
	return "a restart of the daemon would not know of it: the disk takes nothing (`sluice show status`); make room, and it is written within seconds\n"
}

// drainText is a line of show status and of show bgp.
func drainText(c *cli, d api.Drain) string {
	by := prefixed(", by ", d.By)
	if d.Unkept {
		by += " (a restart would not know of it: the disk takes nothing)"
	}
	if d.State == api.DrainDone {
		return "drained since " + c.since(*d.Since) + by + ": everything is withdrawn"
	}
	return fmt.Sprintf("draining since %s%s: everything is announced as the last choice, and withdrawn in %s", c.since(*d.Since), by,
		max(0, d.WithdrawnAt.Sub(c.now())).Round(time.Second))
}
