package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) clearCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "clear", Short: "Set counters to zero, forget flows, or reset BGP sessions"}
	cmd.AddCommand(&cobra.Command{
		Use:   "counters [POLICY]",
		Short: "Set the counters of rules and defaults to zero",
		Long: `Packets, bytes and the last hit: of one policy, or of all. The counters of reasons, as in
show drops, go on.`,
		Example: `  sluice clear counters
  sluice clear counters ingress`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := c.client().ClearCounters(cmd.Context(), api.ClearCountersRequest{Policy: strings.Join(args, "")})
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(done)
			}
			fmt.Fprintf(c.out, "cleared %s of %s\n", plural.Of(done.Rules, "rule", "rules"), plural.Of(len(done.Policies), "policy", "policies"))
			return nil
		},
	})
	cmd.AddCommand(c.clearFlowsCmd(), c.clearBGPCmd())
	return cmd
}
