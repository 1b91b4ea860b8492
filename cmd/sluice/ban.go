package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) banCmd() *cobra.Command {
	request := api.BanRequest{By: author()}
	var lasts lifetime
	cmd := &cobra.Command{
		Use:   "ban TARGET...",
		Short: "Drop everything from addresses or prefixes, for a time; management: still lets in",
		Long: `Bans hold at once and on every uplink and tunnel, without a new revision: apply and rollback leave them alone. They end
by themselves, and outlive a restart of the daemon, a reboot and sluice down. What management: and the system rules let in (BGP with a
neighbor, a tunnel's packets) comes in still.

What is banned already gets the new end and reason, also where that is sooner: the answer says what held before.`,
		Example: `  sluice ban 192.0.2.7 --for 10m --why "ssh guessing"
  sluice ban 192.0.2.0/24 2001:db8:bad::/48 --for 7d
  sluice ban 192.0.2.7                                 # until sluice unban 192.0.2.7`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Targets, request.ForSeconds = args, lasts.seconds()
			bans, err := c.client().Ban(cmd.Context(), request)
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(bans)
			}
			for _, b := range bans {
				fmt.Fprintf(c.out, "%s is banned %s%s\n", b.Target, untilText(b.Until), beforeText(b))
			}
			return nil
		},
	}
	cmd.Flags().Var(&lasts, "for", "how long, such as 90s, 10m, 12h or 7d; without it, until it is lifted")
	cmd.Flags().StringVar(&request.Why, "why", "", "the `REASON`, for show bans and explain")
	cmd.Flags().BoolVar(&request.Force, "force", false, "ban also what covers a neighbor, a next hop, a tunnel's peer, or very much")
	return cmd
}

func untilText(until *time.Time) string {
	if until == nil {
		return "until it is lifted"
	}
	return "until " + until.Local().Format(time.DateTime)
}

// beforeText says which ban of the same target a new one took the place of, above all where that held for longer.
func beforeText(b api.Ban) string {
	before := b.Before
	if before == nil {
		return ""
	}
	when := "; before: "
	if b.Until != nil && (before.Until == nil || before.Until.After(*b.Until)) {
		when = ", SOONER than before: "
	}
	return when + untilText(before.Until) + prefixed(", by ", before.By) + prefixed(": ", before.Why)
}

func printBans(c *cli, list api.Bans) error {
	t := c.table("TARGET", "LEFT", "PACKETS", "LAST HIT", "BY", "SINCE", "WHY")
	for _, b := range list.Bans {
		left, hit := "no end", "never"
		if b.Until != nil {
			left = time.Duration(b.RemainingSeconds * float64(time.Second)).Round(time.Second).String()
		}
		if b.LastHit != nil {
			hit = c.since(*b.LastHit) + " ago"
		}
		t.row(b.Target, left, b.Packets, hit, b.By, b.Since.Local().Format(time.DateTime), b.Why)
	}
	if err := t.print(); err != nil {
		return err
	}
	if n := len(list.Bans); n < list.Total {
		fmt.Fprintf(c.out, "these are the first %d of %s: --limit shows more, and a prefix fewer\n", n, plural.Of(list.Total, "ban", "bans"))
	}
	return nil
}
