package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) showBGPCmd(short string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "bgp",
		Short:   short,
		Example: "  sluice show bgp\n  sluice show bgp neighbor tor-a\n  sluice show bgp -o json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.show(cmd.Context(), "bgp") },
	}
	cmd.AddCommand(c.showNeighborCmd())
	return cmd
}

func (c *cli) showNeighborCmd() *cobra.Command {
	request := api.NeighborRequest{Limit: api.DefaultPaths}
	cmd := &cobra.Command{
		Use:   "neighbor NAME [advertised|received|accepted]",
		Short: "Show one neighbor, or a table of it",
		Long: `Timers, messages and what last went wrong. With a table: what is advertised to it, what was received from it as it came, or what was
accepted of that. What of the accepted goes to the kernel is in show routes.`,
		Example: "  sluice show bgp neighbor tor-a\n  sluice show bgp neighbor tor-a advertised",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if request.Name = args[0]; len(args) == 2 {
				if request.Table = api.NeighborTable(args[1]); !slices.Contains(api.NeighborTables(), request.Table) {
					return usageError{fmt.Errorf("%q is no table of a neighbor: want one of %v", args[1], api.NeighborTables())}
				}
			}
			n, err := c.client().Neighbor(cmd.Context(), request)
			switch {
			case err != nil:
				return err
			case c.json():
				return c.printJSON(n)
			case request.Table != "":
				return printPaths(c, n)
			}
			return printNeighbor(c, n.Neighbor)
		},
	}
	cmd.Flags().Var(number[int]{&request.Limit, math.MaxInt32, "1000"}, "limit", "how many paths at most")
	return cmd
}

func (c *cli) clearBGPCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "bgp NEIGHBOR [soft]",
		Short: "Reset a session",
		Long: `The session ends with a Cease and comes up again; one that is down for too many prefixes gets another try. With soft it stays up:
what was received is judged again, and what is advertised is sent again.`,
		Example: "  sluice clear bgp tor-a\n  sluice clear bgp tor-a soft",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && args[1] != "soft" {
				return usageError{fmt.Errorf("%q: want soft or nothing behind the neighbor", args[1])}
			}
			done, err := c.client().ClearBGP(cmd.Context(), api.ClearBGPRequest{Neighbor: args[0], Soft: len(args) == 2})
			switch {
			case err != nil:
				return err
			case c.json():
				return c.printJSON(done)
			case done.Soft:
				fmt.Fprintf(c.out, "routes with %s are judged and sent again\n", done.Neighbor)
			default:
				fmt.Fprintf(c.out, "the session with %s was reset\n", done.Neighbor)
			}
			return nil
		},
	}
}

func printBGP(c *cli, list []api.Neighbor) error {
	t := c.table("NEIGHBOR", "ADDRESS", "ASN", "STATE", "UPTIME", "BFD", "FAMILY", "RECEIVED", "ACCEPTED", "ADVERTISED")
	for _, n := range list {
		state, up := neighborState(n)
		if len(n.Families) == 0 {
			t.row(n.Name, n.Address, n.ASN, state, up, bfdText(n), "", "", "", "")
		}
		for _, f := range n.Families {
			t.row(n.Name, n.Address, n.ASN, state, up, bfdText(n), f.Family, f.Received, f.Accepted, f.Advertised)
		}
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, n := range list {
		for _, f := range n.Families {
			if f.OtherFirstAS > 0 {
				fmt.Fprintf(c.out, "%s: %s; see sluice show bgp neighbor %s received\n", n.Name, otherFirstAS(n, f.Family, f.OtherFirstAS), n.Name)
			}
		}
		if n.State != "established" && n.LastError != "" {
			fmt.Fprintf(c.out, "%s: %s\n", n.Name, n.LastError)
		}
		if d := n.LastDial; d != nil {
			fmt.Fprintf(c.out, "%s: %s (tried %s ago)\n", n.Name, d.Error, c.since(d.Time))
		}
		if why := bfdWhy(n); why != "" {
			fmt.Fprintf(c.out, "%s: BFD: %s\n", n.Name, why)
		}
	}
	return nil
}

func otherFirstAS(n api.Neighbor, family string, refused uint64) string {
	return fmt.Sprintf("%s of %s refused: the first AS in the path is not %d (enforce_first_as)", plural.Of(refused, "route", "routes"), family, n.ASN)
}

// neighborState is the state as an operator reads it, and for how long.
func neighborState(n api.Neighbor) (state, up string) {
	switch {
	case n.State == "established":
		return n.State, (time.Duration(n.UptimeSeconds) * time.Second).String()
	case n.Down != "":
		return n.State + " (" + n.Down + ")", "-"
	}
	return n.State, "-"
}

func printNeighbor(c *cli, n api.Neighbor) error {
	state, up := neighborState(n)
	line := func(name, format string, args ...any) {
		if text := strings.TrimSpace(fmt.Sprintf(format, args...)); text != "" {
			fmt.Fprintf(c.out, "%-14s%s\n", name, text)
		}
	}
	kind := map[bool]string{true: "iBGP", false: "eBGP"}[n.Internal]
	if n.Passive {
		kind += ", passive"
	}
	line("neighbor", "%s, %s, AS %d, %s", n.Name, n.Address, n.ASN, kind)
	line("state", "%s", state)
	if n.State == "established" {
		line("up", "%s", up)
		line("session", "router id %s, hold %ds, keepalive %ds", n.RouterID, n.HoldSeconds, n.KeepaliveSeconds)
	}
	line("flaps", "%d", n.Flaps)
	if n.BFD != nil {
		line("bfd", "%s", strings.TrimSuffix(bfdText(n)+": "+bfdWhy(n), ": "))
	}
	line("last error", "%s", n.LastError)
	if d := n.LastDial; d != nil {
		line("last try", "%s ago: %s", c.since(d.Time), d.Error)
	}
	if last := n.Notification; last != nil {
		line("notification", "%s (%d/%d) at %s", last, last.Code, last.Subcode, last.Time.Format(time.DateTime))
	}
	if n.MaxPrefixes > 0 {
		line("max prefixes", "%d of each family", n.MaxPrefixes)
	}
	for _, f := range n.Families {
		line(f.Family, "%d received, %d accepted, %d advertised", f.Received, f.Accepted, f.Advertised)
		if f.OtherFirstAS > 0 {
			line("", "%s", otherFirstAS(n, f.Family, f.OtherFirstAS))
		}
	}
	t := c.table("MESSAGES", "OPEN", "UPDATE", "KEEPALIVE", "NOTIFICATION", "ROUTE-REFRESH")
	for _, m := range []struct {
		name string
		api.MessageCounts
	}{{"sent", n.Sent}, {"received", n.Received}} {
		t.row(m.name, m.Open, m.Update, m.Keepalive, m.Notification, m.RouteRefresh)
	}
	return t.print()
}

func printPaths(c *cli, n api.NeighborDetail) error {
	t := c.table("PREFIX", "NEXT HOP", "AS PATH", "LOCAL PREF", "MED", "COMMUNITIES", "STATE")
	optional := func(v *uint32) any {
		if v == nil {
			return ""
		}
		return *v
	}
	for _, p := range n.Paths {
		communities := []string{}
		for _, community := range p.Communities {
			communities = append(communities, fmt.Sprintf("%d:%d", community>>16, community&0xffff))
		}
		note := map[bool]string{true: "stale", false: ""}[p.Stale]
		if p.Refused != "" {
			note = strings.TrimPrefix(note+", refused: "+p.Refused, ", ")
		}
		t.row(p.Prefix, p.NextHop, strings.Trim(fmt.Sprint(p.ASPath), "[]"), optional(p.LocalPref), optional(p.MED), strings.Join(communities, " "), note)
	}
	if err := t.print(); err != nil {
		return err
	}
	if more := n.Total - len(n.Paths); more > 0 {
		fmt.Fprintf(c.out, "and %d more: --limit shows them\n", more)
	}
	return nil
}
