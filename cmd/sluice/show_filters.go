package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) showFiltersCmd(short string) *cobra.Command {
	request := api.FiltersRequest{Limit: api.DefaultFilters}
	cmd := &cobra.Command{
		Use:     "flowspec [NEIGHBOR]",
		Short:   short,
		Example: "  sluice show flowspec\n  sluice show flowspec tor-a --limit 10\n  sluice show flowspec --count",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				request.Neighbor = args[0]
			}
			filters, err := c.client().Filters(cmd.Context(), request)
			switch {
			case err != nil:
				return err
			case c.json():
				return c.printJSON(filters)
			case request.Count:
				fmt.Fprintln(c.out, filtersText(filters))
				return nil
			}
			return printFilters(c, filters)
		},
	}
	shownFlags(cmd, &request.Limit, &request.Count)
	return cmd
}

// filtersText counts them: "7 filters, 1 refused, 2 stale".
func filtersText(list api.Filters) string {
	return plural.Of(list.Total, "filter", "filters") + some(list.Refused, "refused") + some(list.Stale, "stale")
}

func printFilters(c *cli, list api.Filters) error {
	t := c.table("NEIGHBOR", "RULE", "ACTIONS", "STATE", "AGE", "PACKETS", "BYTES", "DROPPED", "LAST HIT")
	for _, f := range list.Filters {
		state, hit := "valid", "never"
		switch {
		case !f.Valid:
			state = "refused: " + f.Refused
		case f.Stale != nil:
			state = "stale since " + c.since(*f.Stale) + ", " + untilText(f.Until)
		}
		if f.LastHit != nil {
			hit = c.since(*f.LastHit) + " ago"
		}
		t.row(f.Neighbor, f.Rule, filterActions(f), state, c.since(f.Since), f.Packets, bytesText(int64(f.Bytes)), f.Dropped, hit)
	}
	if err := t.print(); err != nil {
		return err
	}
	if n := len(list.Filters); n < list.Total {
		fmt.Fprintf(c.out, "these are the first %d of %s: --limit shows more\n", n, filtersText(list))
	}
	return nil
}

func filterActions(f api.Filter) string { return f.Actions + prefixed(", to socket ", f.Socket) }

// filterText is what happened to a filter.
func filterText(e api.Event) string {
	f := e.Filter
	text := strings.Join([]string{"neighbor", f.Neighbor, f.Rule, f.Actions, e.Text}, " ")
	if f.Stale != nil && e.Text != api.FilterAgedOut && e.Text != api.FilterRemoved {
		text += " " + untilText(f.Until)
	}
	return text + prefixed(": ", f.Refused)
}
