package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/control/api"
)

func (c *cli) unbanCmd() *cobra.Command {
	var request api.UnbanRequest
	cmd := &cobra.Command{
		Use:   "unban TARGET... | --all",
		Short: "Lift bans",
		Long: `A ban is named as show bans names it: an address within a banned prefix is not. Exit code 1 where one of them is not
banned: then none is lifted.`,
		Example: `  sluice unban 192.0.2.7
  sluice unban 192.0.2.0/24 2001:db8:bad::/48
  sluice unban --all`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if request.All == (len(args) > 0) {
				return usageError{fmt.Errorf("name the bans to lift, or say --all; see `%s --help`", cmd.CommandPath())}
			}
			request.Targets = args
			bans, err := c.client().Unban(cmd.Context(), request)
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(bans)
			}
			for _, b := range bans {
				fmt.Fprintf(c.out, "%s is not banned any more\n", b.Target)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&request.All, "all", false, "lift every ban")
	return cmd
}
