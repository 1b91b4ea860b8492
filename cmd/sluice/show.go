package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/control/api"
)

func (c *cli) showCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Look at the running gateway; changes nothing",
	}
	for _, noun := range api.Nouns {
		switch noun.Name {
		case "policy":
			cmd.AddCommand(c.showPolicyCmd(noun.Help))
			continue
		case "flows":
			cmd.AddCommand(c.showFlowsCmd("Show " + noun.Help))
			continue
		case "bgp":
			cmd.AddCommand(c.showBGPCmd("Show " + noun.Help))
			continue
		case "routes":
			cmd.AddCommand(c.showRoutesCmd("Show " + noun.Help))
			continue
		case "tunnels":
			cmd.AddCommand(c.showTunnelsCmd("Show " + noun.Help))
			continue
		case "flowspec":
			cmd.AddCommand(c.showFiltersCmd("Show " + noun.Help))
			continue
		case "bans":
			cmd.AddCommand(c.showBansCmd("Show " + noun.Help))
			continue
		}
		cmd.AddCommand(&cobra.Command{
			Use:     noun.Name,
			Short:   "Show " + noun.Help,
			Example: fmt.Sprintf("  sluice show %s\n  sluice show %[1]s -o json", noun.Name),
			RunE:    func(cmd *cobra.Command, _ []string) error { return c.show(cmd.Context(), noun.Name) },
		})
	}
	cmd.AddCommand(c.showConfigCmd())
	return cmd
}

// show prints a noun: as the daemon's JSON, or by the printer of that noun.
func (c *cli) show(ctx context.Context, noun string) error {
	raw, err := api.Show[json.RawMessage](ctx, c.client(), noun)
	if err != nil {
		return err
	}
	if c.json() {
		return c.printJSON(raw)
	}
	print, ok := printers[noun]
	if !ok {
		return fmt.Errorf("show %s has no text form: use -o json", noun)
	}
	if err := print(c, raw); err != nil || noun != "bgp" {
		return err
	}
	// Sessions of a drained box look as ever.
	if status, err := api.Show[api.Status](ctx, c.client(), "status"); err == nil && status.Drain != nil {
		fmt.Fprintln(c.out, drainText(c, *status.Drain))
	}
	return nil
}

func (c *cli) showConfigCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "config [REVISION]",
		Short:   "Show a revision's file as it was applied; without a number, the live one's",
		Example: "  sluice show config\n  sluice show config 12",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := 0
			if len(args) == 1 {
				var err error
				if n, err = strconv.Atoi(args[0]); err != nil || n < 1 {
					return usageError{fmt.Errorf("%q is no revision; `sluice history` lists them", args[0])}
				}
			}
			stored, err := c.client().Config(cmd.Context(), n)
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(stored)
			}
			_, err = fmt.Fprintf(c.out, "# revision %d, %s\n%s", stored.Meta.Number, stored.Meta.Status, ensureNewline(stored.Bytes))
			return err
		},
	}
}

func ensureNewline(b []byte) string {
	text := string(b)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}
