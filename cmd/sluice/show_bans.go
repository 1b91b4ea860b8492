package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/control/api"
)

// banFilter chooses bans to show.
type banFilter struct {
	about netip.Prefix // invalid: all
	by    string
	why   string
}

// keeps says whether a ban is about the address or prefix, or a part of it, and of that author and reason.
func (f banFilter) keeps(b api.Ban) bool {
	target, err := parseAbout(b.Target)
	if f.about.IsValid() && (err != nil || !target.Overlaps(f.about)) {
		return false
	}
	return (f.by == "" || b.By == f.by) && strings.Contains(strings.ToLower(b.Why), strings.ToLower(f.why))
}

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
	var f banFilter
	cmd := &cobra.Command{
		Use:     "bans [TARGET]",
		Short:   short,
		Long:    "With an address or a prefix: those that cover it, and those within it.",
		Example: "  sluice show bans 192.0.2.7\n  sluice show bans --by ann --why ssh",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				var err error
				if f.about, err = parseAbout(args[0]); err != nil {
					return usageError{err}
				}
			}
			bans, err := api.Show[[]api.Ban](cmd.Context(), c.client(), "bans")
			if err != nil {
				return err
			}
			bans = slices.DeleteFunc(bans, func(b api.Ban) bool { return !f.keeps(b) })
			if c.json() {
				return c.printJSON(bans)
			}
			return printBans(c, bans)
		},
	}
	cmd.Flags().StringVar(&f.by, "by", "", "only those of this `AUTHOR`")
	cmd.Flags().StringVar(&f.why, "why", "", "only those with this `TEXT` in their reason")
	return cmd
}
