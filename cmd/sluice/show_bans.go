package main

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

// parseAbout reads an address or a prefix.
func parseAbout(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no address and no prefix", text)
	}
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func (c *cli) showBansCmd(short string) *cobra.Command {
	request := api.BansRequest{Limit: api.DefaultBans}
	cmd := &cobra.Command{
		Use:   "bans [TARGET]",
		Short: short,
		Long:  "With an address or a prefix: those that cover it, and those within it.",
		Example: `  sluice show bans 192.0.2.7
  sluice show bans --by ann --why ssh
  sluice show bans --count`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				about, err := parseAbout(args[0])
				if err != nil {
					return usageError{err}
				}
				request.About = about.String()
			}
			bans, err := c.client().Bans(cmd.Context(), request)
			switch {
			case err != nil:
				return err
			case c.json():
				return c.printJSON(bans)
			case request.Count:
				fmt.Fprintln(c.out, plural.Of(bans.Total, "ban", "bans"))
				return nil
			}
			return printBans(c, bans)
		},
	}
	cmd.Flags().StringVar(&request.By, "by", "", "only those of this `AUTHOR`")
	cmd.Flags().StringVar(&request.Why, "why", "", "only those with this `TEXT` in their reason")
	shownFlags(cmd, &request.Limit, &request.Count)
	return cmd
}

// shownFlags are those of what may be long.
func shownFlags(cmd *cobra.Command, limit *int, count *bool) {
	cmd.Flags().Var(number[int]{limit, math.MaxInt32, "1000"}, "limit", "how many at most")
	cmd.Flags().BoolVar(count, "count", false, "only how many")
}
