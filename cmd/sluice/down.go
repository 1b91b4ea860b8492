package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) downCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Give the machine back: remove everything but management addresses and routes, and end the daemon",
		Long: `Nothing filters any more: bans and
watched sets hold no longer. Revisions, keys, bans and what watched set files held stay in the state directory, and the next
start takes them up again: a ban that has not ended by then drops again.`,
		Example: "  sluice down",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.client().Down(cmd.Context()); err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(map[string]bool{"down": true})
			}
			_, err := fmt.Fprintln(c.out, "everything of Sluice's is gone but management addresses and routes; revisions, bans and keys stay in the state directory")
			return err
		},
	}
}
