package main

import (
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) historyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "List the revisions",
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
			return t.print()
		},
	}
}
