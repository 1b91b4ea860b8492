package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sluice/control/api"
)

func (c *cli) tunnelCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tunnel",
		Short: "Act on tunnels, which show tunnels reads",
	}
	cmd.AddCommand(c.tunnelRestartCmd())
	return cmd
}

func (c *cli) tunnelRestartCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "restart TUNNEL",
		Short: "Exchange the process of a tunnel for one of the daemon's version",
		Long: `A userspace WireGuard tunnel and a UDP port of ESP belong to small processes that live on when the daemon is upgraded: they go on as
the version they were started from, and show status names those of another one. This exchanges the tunnel's. A userspace tunnel
carries nothing until its peers have shaken hands again, mostly within a second, and plaintext does not leave instead; of ESP in UDP
what arrives in some milliseconds is lost.`,
		Example: "  sluice tunnel restart fra1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.client().RestartTunnel(cmd.Context(), api.RestartRequest{Tunnel: args[0]})
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(r)
			}
			if r.Before.PID == 0 {
				_, err = fmt.Fprintf(c.out, "%s: no process ran; %d of version %s was started\n", processText(r.Now), r.Now.PID, versionText(r.Now.Version))
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s: process %d of version %s was exchanged for %d of version %s\n", processText(r.Now),
				r.Before.PID, versionText(r.Before.Version), r.Now.PID, versionText(r.Now.Version))
			return err
		},
	}
}

// processText says what a process is for.
func processText(p api.Process) string {
	tunnels := "tunnel " + strings.Join(p.Tunnels, ", ")
	if p.Holds == "" {
		return tunnels
	}
	return "UDP port " + p.Holds + " of " + tunnels
}

func versionText(version string) string { return cmp.Or(version, "unknown, an earlier one") }

// otherVersions tells of processes that are not of the daemon's version, and what to do.
func (c *cli) otherVersions(s api.Status) {
	for _, p := range s.Processes {
		if p.Version != s.Version && len(p.Tunnels) > 0 {
			fmt.Fprintf(c.out, "process     %s: pid %d is of version %s until: sluice tunnel restart %s\n",
				processText(p), p.PID, versionText(p.Version), p.Tunnels[0])
		}
	}
}
