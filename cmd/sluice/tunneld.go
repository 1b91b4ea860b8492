package main

import (
	"os"

	"github.com/spf13/cobra"

	"sluice/crypto/wireguard/child"
)

// tunnelCommand makes the daemon run this very binary again, also when its file has been replaced meanwhile.
func tunnelCommand() []string { return []string{"/proc/self/exe", child.Verb} }

// tunneldCmd is the process of one userspace WireGuard tunnel, which the daemon starts.
func (c *cli) tunneldCmd() *cobra.Command {
	return &cobra.Command{
		Use:    child.Verb + " NAME SOCKET",
		Short:  "The process of a userspace tunnel",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			nameProcess(cmd)
			return child.Run(cmd.Context(), args[0], version)
		},
	}
}

// nameProcess gives the process the name of its verb, which ps, ss and sluice doctor show: started from /proc/self/exe it would be
// called "exe". Not sluice: `killall sluice` shall end the daemon, and no tunnel. The file is that of the first thread, whichever runs.
func nameProcess(cmd *cobra.Command) { _ = os.WriteFile("/proc/self/comm", []byte(cmd.Name()), 0) }
