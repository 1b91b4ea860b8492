package main

import (
	"github.com/spf13/cobra"
)

func (c *cli) clearCmd() *cobra.Command {
	return &cobra.Command{
		Use:       "clear counters|flows",
		Short:     "Set counters to zero, or forget tracked flows",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"counters", "flows"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.client().Clear(cmd.Context(), args[0])
		},
	}
}
