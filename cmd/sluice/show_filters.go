package main

import (
	"strings"

	"sluice/control/api"
)

func printFilters(c *cli, list []api.Filter) error {
	t := c.table("NEIGHBOR", "RULE", "ACTIONS", "STATE", "AGE", "PACKETS", "BYTES", "DROPPED", "LAST HIT")
	for _, f := range list {
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
	return t.print()
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
