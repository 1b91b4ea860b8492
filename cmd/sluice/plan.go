package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/control/daemon"
)

func (c *cli) planCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "plan",
		Short:   "Show what apply would do, step by step",
		Long:    `Nothing is changed. Exit code 1 where apply would refuse the file.`,
		Example: "  sluice plan -c new.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			candidate, judge, err := daemon.Collect(c.file)
			if err != nil {
				return err
			}
			plan, err := c.client().Plan(cmd.Context(), candidate)
			if err != nil {
				return refusal(err, judge)
			}
			if c.json() {
				return c.printJSON(plan)
			}
			_, err = fmt.Fprint(c.out, plan)
			return err
		},
	}
	c.fileFlag(cmd)
	return cmd
}
