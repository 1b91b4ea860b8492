package main

import (
	"github.com/spf13/cobra"

	"sluice/bgp/bfd"
)

func bfdCommand() []string { return []string{"/proc/self/exe", bfd.Verb} }

// bfddCmd is the process that holds BFD sessions, which the daemon starts.
func (c *cli) bfddCmd() *cobra.Command {
	return &cobra.Command{
		Use:    bfd.Verb + " NAME SOCKET",
		Short:  "The process of BFD sessions",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, _ []string) error {
			nameProcess(cmd)
			return bfd.Run(cmd.Context(), version)
		},
	}
}
