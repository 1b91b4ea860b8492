package main

import (
	"github.com/spf13/cobra"
)

// What units of the node image call; nobody types it.
const bootDir = "/run/sluice/boot"

func (c *cli) nodeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "node",
		Short:  "What the units of the node image run",
		Hidden: true,
	}
	for _, verb := range []*cobra.Command{c.nodeSourceCmd(), c.nodeDecideCmd(), c.nodeConsoleCmd(), c.nodeGateCmd()} {
		verb.Hidden = true
		cmd.AddCommand(verb)
	}
	return cmd
}

func (c *cli) stateDir() string { return c.settings.GetString("node.state_dir") }

// bootDirFlag is where the configuration of this boot lies.
func bootDirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", bootDir, "the `DIR` of this boot's configuration")
}
