package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
)

func (c *cli) historyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "List the revisions",
		Long: `The oldest first, with why a reverted one went back. Kept are the newest 50, the newest confirmed ones, and what a pending one goes
back to.`,
		Example: "  sluice history",
		RunE: func(cmd *cobra.Command, _ []string) error {
			revisions, err := c.client().History(cmd.Context())
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(revisions)
			}
			t := c.table("REVISION", "TIME", "STATUS", "AUTHOR", "MESSAGE", "WHY REVERTED")
			for _, r := range revisions {
				t.row(r.Number, r.Time.Local().Format(time.DateTime), r.Status, r.Author, r.Message, r.Reason)
			}
			if err := t.print(); err != nil {
				return err
			}
			for _, g := range api.Gone(revisions) {
				fmt.Fprintf(c.out, "%s: not kept\n", rangeText(g[0], g[1]))
			}
			return nil
		},
	}
}

func rangeText(first, last int) string {
	if first == last {
		return fmt.Sprintf("revision %d", first)
	}
	return fmt.Sprintf("revisions %d to %d", first, last)
}
