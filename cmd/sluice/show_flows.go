package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

// flowFlags are the flags that choose flows; an address or a prefix is the word behind the verb.
func flowFlags(cmd *cobra.Command, f *api.FlowFilter) {
	cmd.Args = cobra.MaximumNArgs(1)
	flags := cmd.Flags()
	flags.Var(number[uint16]{&f.Port, math.MaxUint16, "443"}, "port", "only those with this port at either end")
	flags.StringVar(&f.Protocol, "protocol", "", "only those of this `PROTOCOL`: tcp, udp, udplite, sctp, icmp, icmpv6, gre, esp or a number")
	flags.StringVar(&f.State, "state", "", "only those in this `STATE`: new, replied, established, closing, closed or revoked")
	flags.StringVar(&f.Workload, "workload", "", "only those of this `WORKLOAD`")
	flags.StringVar(&f.Rule, "rule", "", "only those that this `RULE` let in, such as ingress/web or egress/default")
	flags.BoolVar(&f.Translated, "nat", false, "only those whose source is translated")
}

// flowAddress takes the word behind the verb.
func flowAddress(f *api.FlowFilter, args []string) error {
	if len(args) == 0 {
		return nil
	}
	f.Address = args[0]
	_, err := parseAbout(args[0])
	if err != nil {
		return usageError{err}
	}
	return nil
}

func (c *cli) showFlowsCmd(short string) *cobra.Command {
	request := api.FlowsRequest{Limit: api.DefaultFlows}
	cmd := &cobra.Command{
		Use:   "flows [TARGET]",
		Short: short,
		Long: `Each in the direction of its first packet: how many packets and bytes went that way, and came back. With an address or a
prefix: those that have it at either end, or are translated to it.`,
		Example: `  sluice show flows
  sluice show flows 10.0.1.10 --protocol tcp --port 443
  sluice show flows --workload web-1 --state established --limit 1000
  sluice show flows --count`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flowAddress(&request.FlowFilter, args); err != nil {
				return err
			}
			flows, err := c.client().Flows(cmd.Context(), request)
			switch {
			case err != nil:
				return err
			case c.json():
				return c.printJSON(flows)
			case request.Count:
				return printFlowCounts(c, flows)
			}
			return printFlows(c, flows)
		},
	}
	flowFlags(cmd, &request.FlowFilter)
	cmd.Flags().Var(number[int]{&request.Limit, math.MaxInt32, "1000"}, "limit", "how many at most")
	cmd.Flags().BoolVar(&request.Count, "count", false, "only how many, by state and by workload")
	return cmd
}

func (c *cli) clearFlowsCmd() *cobra.Command {
	var request api.ClearFlowsRequest
	cmd := &cobra.Command{
		Use:   "flows [TARGET]",
		Short: "Forget tracked flows, with their translations",
		Long: `What a packet of one enters again is another flow: it is judged anew, and translated to another port. A session whose
source is translated breaks by that. Without any filter say --all.`,
		Example: `  sluice clear flows 192.0.2.7
  sluice clear flows --workload web-1 --state closing
  sluice clear flows --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flowAddress(&request.FlowFilter, args); err != nil {
				return err
			}
			empty := request.FlowFilter == (api.FlowFilter{})
			switch {
			case empty && !request.All:
				return usageError{errors.New("say which flows, or --all; see `sluice clear flows --help`")}
			case !empty && request.All:
				return usageError{errors.New("--all goes with no filter; see `sluice clear flows --help`")}
			}
			cleared, err := c.client().ClearFlows(cmd.Context(), request)
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(cleared)
			}
			fmt.Fprintf(c.out, "forgot %s\n", plural.Of(cleared.Flows, "flow", "flows"))
			return nil
		},
	}
	flowFlags(cmd, &request.FlowFilter)
	cmd.Flags().BoolVar(&request.All, "all", false, "all flows")
	return cmd
}

func printFlows(c *cli, list api.Flows) error {
	t := c.table("PROTOCOL", "SOURCE", "DESTINATION", "TRANSLATED TO", "STATE", "AGE", "IDLE", "SENT", "ANSWERED", "OF", "RULE")
	for _, f := range list.Flows {
		t.row(f.Protocol, f.Source, f.Destination, f.TranslatedTo, f.State, secondsText(f.AgeSeconds), secondsText(f.IdleSeconds),
			trafficText(f.Packets, f.Bytes), trafficText(f.AnsweredPackets, f.AnsweredBytes), cmp.Or(f.Workload, f.LAN), orDash(strings.Join(f.Rules, " ")))
	}
	if err := t.print(); err != nil {
		return err
	}
	if n := len(list.Flows); n < list.Total {
		fmt.Fprintf(c.out, "these are the first %d of %d flows: --limit shows more, and a filter fewer\n", n, list.Total)
	}
	return nil
}

func trafficText(packets, bytes uint64) string {
	return fmt.Sprintf("%d / %s", packets, bytesText(int64(bytes)))
}

// printFlowCounts puts the largest number first.
func printFlowCounts(c *cli, list api.Flows) error {
	fmt.Fprintln(c.out, plural.Of(list.Total, "flow", "flows"))
	for _, by := range []struct {
		head string
		n    map[string]int
	}{{"STATE", list.States}, {"WORKLOAD", list.Workloads}} {
		names := slices.SortedFunc(maps.Keys(by.n), func(a, b string) int {
			if by.n[a] != by.n[b] {
				return by.n[b] - by.n[a]
			}
			return strings.Compare(a, b)
		})
		if len(names) == 0 {
			continue
		}
		fmt.Fprintln(c.out)
		t := c.table(by.head, "FLOWS")
		for _, name := range names {
			t.row(name, by.n[name])
		}
		if err := t.print(); err != nil {
			return err
		}
	}
	return nil
}

// conntrackText is the fill of the flow tables, and what found no room since the machine booted.
func conntrackText(t api.Conntrack) string {
	fill := func(f api.TableFill) string { return fmt.Sprintf("%d of %d", f.Entries, f.Max) }
	text := fmt.Sprintf("%s proven, %s new from inside, %s from outside", fill(t.Flows), fill(t.FreshOut), fill(t.FreshIn))
	if t.Full+t.Crowded+t.Unmade > 0 {
		text += fmt.Sprintf("; no room %d, beyond a share %d, untracked %s", t.Full, t.Crowded, plural.Of(t.Unmade, "time", "times"))
	}
	return text
}

func flowText(e api.FlowEvent) string {
	words := []string{e.Change, e.Protocol, e.Source, ">", e.Destination}
	if e.TranslatedTo != "" {
		words = append(words, "as "+e.TranslatedTo)
	}
	if of := cmp.Or(e.Workload, e.LAN); of != "" {
		words = append(words, "of "+of)
	}
	if e.Change != "new" {
		age := time.Duration(e.AgeSeconds * float64(time.Second)).Round(100 * time.Millisecond)
		words = append(words, "after "+age.String(), "sent "+trafficText(e.Packets, e.Bytes), "answered "+trafficText(e.AnsweredPackets, e.AnsweredBytes))
	}
	return strings.Join(append(words, e.Rules...), " ")
}
