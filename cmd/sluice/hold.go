package main

import (
	"github.com/spf13/cobra"

	"sluice/crypto/ipsec"
)

// holdCmd is not for people: the daemon starts it where a tunnel's ESP comes in UDP.
func (c *cli) holdCmd() *cobra.Command {
	return &cobra.Command{
		Use:    ipsec.HolderVerb + " LOCK ADDRESS:PORT",
		Short:  "Hold the UDP port of a tunnel (the daemon runs this)",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			nameProcess(cmd)
			return ipsec.Hold(cmd.Context(), args, version)
		},
	}
}
