package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) confirmCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "confirm",
		Short:   "Keep the revision that waits for confirmation",
		Long:    "Exit code 1 where none waits: it says what became of the last one.",
		Example: "  sluice confirm",
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := c.client().Confirm(cmd.Context())
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(n)
			}
			_, err = fmt.Fprintf(c.out, "revision %d is confirmed\n", n.Revision)
			return err
		},
	}
}
