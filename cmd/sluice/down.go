package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) downCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Give the machine back: remove everything but management addresses and routes, and end the daemon",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.client().Down(cmd.Context()); err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(struct{}{})
			}
			_, err := fmt.Fprintln(c.out, "the machine is given back; management addresses and routes stay, as do revisions and keys in the state directory")
			return err
		},
	}
}
