package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) showRoutesCmd(short string) *cobra.Command {
	request := api.RoutesRequest{Limit: api.DefaultPaths}
	cmd := &cobra.Command{
		Use:   "routes [TARGET]",
		Short: short,
		Long:  "With an address or a prefix: those that cover it, and those within it.",
		Example: `  sluice show routes
  sluice show routes 192.0.2.7
  sluice show routes 2001:db8::/32 --limit 100000
  sluice show routes --count`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				request.About = args[0]
				if _, err := parseAbout(args[0]); err != nil {
					return usageError{err}
				}
			}
			routes, err := c.client().Routes(cmd.Context(), request)
			switch {
			case err != nil:
				return err
			case c.json():
				return c.printJSON(routes)
			case request.Count:
				fmt.Fprintln(c.out, routesText(routes))
				return nil
			}
			return printRoutes(c, routes)
		},
	}
	shownFlags(cmd, &request.Limit, &request.Count)
	return cmd
}

func printRoutes(c *cli, list api.Routes) error {
	t := c.table("PREFIX", "NEXT HOPS", "METRIC", "STATE", "PROBLEM")
	for _, r := range list.Routes {
		state := "learned"
		switch {
		case r.Absent:
			state = "absent"
		case r.Stale:
			state = "stale"
		}
		t.row(r.Prefix, joined(r.NextHops), r.Metric, state, r.Problem)
	}
	if err := t.print(); err != nil {
		return err
	}
	if n := len(list.Routes); n < list.Total {
		fmt.Fprintf(c.out, "these are the first %d of %s: --limit shows more, and a prefix fewer\n", n, routesText(list))
	}
	return nil
}

// routesText counts them: "7 routes, 1 absent, 2 stale".
func routesText(list api.Routes) string {
	return plural.Of(list.Total, "route", "routes") + some(list.Absent, "absent") + some(list.Stale, "stale")
}

// some counts what is not to be overlooked, behind a comma; "" where there is none.
func some(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d %s", n, what)
}
