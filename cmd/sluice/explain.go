package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) explainCmd() *cobra.Command {
	var request api.ExplainRequest
	cmd := &cobra.Command{
		Use:   "explain --in IFACE --packet SPEC",
		Short: "Ask the live programs what they do with a packet, and why",
		Long: `The packet is not sent and counts nowhere.

SPEC is PROTOCOL FROM > TO [OPTION=VALUE]...: tcp, udp, udplite or sctp with ports, others without; an IPv6 address that
has a port stands in brackets. The options are, in the words of rules or in numbers:

  flags=syn,!ack        or letters of FSRPAUEW: flags=SA, flags=none; what is not named is clear; mss=1460 of a SYN
  type=echo-request     of ICMP, or type=8 and code=, or type=3/4; id= of an echo
  dscp=ef               or dscp=46
  fragment=first        or later, whole; or frag=0+ (a first fragment), frag=1480 (a last one)
  ttl=64   vlan=100 (twice for two tags)   length= of the IP packet, or len= of the frame   src-mac=   dst-mac=`,
		Example: `  sluice explain --in eth0 --packet 'tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=S'
  sluice explain --in web-1 --packet 'udp [2001:db8::10]:5353 > [2001:db8::53]:53'
  sluice explain --in eth0 --packet 'tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=syn,ack dscp=ef'
  sluice explain --out eth0 --packet 'icmp 198.18.0.2 > 198.18.0.1 type=echo-request'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, _ := cmd.Flags().GetString("out")
			if (request.Interface == "") == (out == "") || request.Packet == "" {
				return usageError{fmt.Errorf("give --packet and one of --in and --out; see `%s --help`", cmd.CommandPath())}
			}
			if out != "" {
				request.Interface, request.Egress = out, true
			}
			answer, err := c.client().Explain(cmd.Context(), request)
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(answer)
			}
			return c.printExplanation(answer)
		},
	}
	cmd.Flags().StringVar(&request.Interface, "in", "", "the `INTERFACE` that the packet enters by")
	cmd.Flags().String("out", "", "the `INTERFACE` that a packet of the box itself leaves by")
	cmd.Flags().StringVar(&request.Packet, "packet", "", "the packet, as `SPEC`")
	return cmd
}

// maxPassedOver bounds what the text says: the rules that came last before the decision.
const maxPassedOver = 20

func (c *cli) printExplanation(e api.Explanation) error {
	fmt.Fprintln(c.out, e.Packet)
	if e.Note != "" {
		fmt.Fprintln(c.out, e.Note)
	}
	for _, h := range e.Hooks {
		fmt.Fprintf(c.out, "%s on %s: %s, %s: %s\n", h.Hook, h.Interface, h.Verdict, h.Reason, h.Text)
		near := h.PassedOver[max(0, len(h.PassedOver)-maxPassedOver):]
		if more := len(h.PassedOver) - len(near); more > 0 {
			fmt.Fprintf(c.out, "  passed over %s before these: -o json names them\n", plural.Of(more, "rule", "rules"))
		}
		for _, p := range near {
			fmt.Fprintf(c.out, "  passed over %s%s: %s\n", p.Rule, lineText("", p.Line), p.Why)
		}
		if h.Rule != "" {
			fmt.Fprintf(c.out, "  by rule %s%s\n", h.Rule, lineText(h.File, h.Line))
		} else if h.Policy != "" {
			fmt.Fprintf(c.out, "  by the default of %s\n", h.Policy)
		}
		if b := h.Ban; b != nil {
			fmt.Fprintf(c.out, "  by the ban of %s %s%s%s\n", b.Target, untilText(b.Until), prefixed(", by ", b.By), prefixed(": ", b.Why))
		}
		c.printFiltersOf(h)
		if h.Source != "" {
			fmt.Fprintf(c.out, "  source becomes %s\n", h.Source)
		}
		if h.SourceKept != "" {
			fmt.Fprintf(c.out, "  source stays: %s, so snat: auto leaves it as it is\n", h.SourceKept)
		}
		if h.Destination != "" {
			fmt.Fprintf(c.out, "  destination becomes %s\n", h.Destination)
		}
		if h.MSS != 0 {
			fmt.Fprintf(c.out, "  MSS becomes %d, which the tunnel carries\n", h.MSS)
		}
		if h.Lost != "" {
			fmt.Fprintf(c.out, "  but it is lost: %s\n", h.Lost)
		}
		if h.TooLarge != "" {
			fmt.Fprintf(c.out, "  %s\n", h.TooLarge)
		}
		if h.RedirectTo != "" {
			fmt.Fprintf(c.out, "  to %s\n", h.RedirectTo)
		}
	}
	if e.Bug != "" {
		fmt.Fprintf(c.out, "BUG, please report: %s\n", e.Bug)
	}
	return nil
}

// printFiltersOf names what BGP neighbors want done with the packet. One that drops it stands last: no other is asked behind it.
func (c *cli) printFiltersOf(h api.HookAnswer) {
	for _, f := range h.Filters {
		if h.Filter != nil && f.Rule == h.Filter.Rule && f.Address == h.Filter.Address {
			continue
		}
		fmt.Fprintf(c.out, "  filter %s of neighbor %s: %s", f.Rule, f.Neighbor, filterActions(f))
		if f.Socket != "" && h.Filter == nil {
			fmt.Fprint(c.out, ", but no program takes it there: it goes on")
		}
		fmt.Fprintln(c.out)
	}
	if h.MoreFilters {
		fmt.Fprintln(c.out, "  and more filters of neighbors")
	}
	if f := h.Filter; f != nil {
		fmt.Fprintf(c.out, "  by %s of neighbor %s: %s\n", f.Rule, f.Neighbor, filterActions(*f))
	}
}

func lineText(file string, line int) string {
	switch {
	case line == 0:
		return ""
	case file == "":
		return fmt.Sprintf(" (line %d)", line)
	default:
		return fmt.Sprintf(" (%s:%d)", file, line)
	}
}

// prefixed is a text with words in front of it, or nothing.
func prefixed(words, text string) string {
	if text == "" {
		return ""
	}
	return words + text
}
