package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) workloadCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "workload",
		Short: "Add and delete workloads beside those of the file",
		Long: `For orchestrators. What is added stays until it is deleted: apply, rollback, restarts and reboots leave it alone. It is no
part of a revision, so "show config" does not have it; "show workloads" does, with its origin. Names, interfaces and addresses belong
to one workload only: what the file has cannot be added, and a file that claims what was added is refused.`,
	}
	cmd.AddCommand(c.workloadAddCmd(), c.workloadDelCmd())
	return cmd
}

func (c *cli) workloadAddCmd() *cobra.Command {
	var spec api.WorkloadSpec
	var policy string
	cmd := &cobra.Command{
		Use:        "add NAME",
		SuggestFor: []string{"create", "new", "set"},
		Short:      "Add a workload, or change one that was added",
		Long: `When it returns the workload is attached, or waits for its interface, which may come later. The same again is no change; with other
values it takes the place of what was added before.

The policy file is YAML with the keys of an entry of workloads: ingress, egress, snat, path, bandwidth. Its rules may name sets and
workloads of the live file.`,
		Example: `  sluice workload add web-1 --interface veth-web1 --address 10.0.1.10,fd00:1::10
  sluice workload add web-1 --interface veth-web1 --address 10.0.1.10 --policy web.yaml
  sluice workload add vpn --interface veth-vpn --address 10.0.1.11 --path stack`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if spec.Interface == "" || len(spec.Addresses) == 0 {
				return usageError{fmt.Errorf("say its --interface and its --address; see `%s --help`", cmd.CommandPath())}
			}
			spec.Name = args[0]
			if policy != "" {
				text, err := readPolicy(policy)
				if err != nil {
					return err
				}
				spec.Policy, spec.PolicyFile = text, policy
			}
			done, err := c.client().AddWorkloads(cmd.Context(), api.WorkloadAdd{Workloads: []api.WorkloadSpec{spec}})
			if err != nil {
				return err
			}
			return c.printChanges(done)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&spec.Interface, "interface", "", "host side of its veth or netkit, the `IFACE`")
	flags.StringSliceVar(&spec.Addresses, "address", nil, "its addresses, `ADDR[,ADDR...]`")
	flags.StringVar(&spec.SNAT, "snat", "", "auto, none or an `ADDRESS` of the node")
	flags.StringVar(&spec.Path, "path", "", "`PATH`: redirect or stack, which the host's own netfilter rules see")
	flags.StringVar(&policy, "policy", "", "the `FILE` of its policy; - is standard input")
	return cmd
}

func (c *cli) workloadDelCmd() *cobra.Command {
	return &cobra.Command{
		Use:        "del NAME...",
		SuggestFor: []string{"delete", "remove", "rm"},
		Short:      "Delete workloads that were added",
		Long:       `All of them or none. Exit code 1 where one of them was not added; those of the file go with the file.`,
		Example: `  sluice workload del web-1
  sluice workload del web-1 web-2`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := c.client().DeleteWorkloads(cmd.Context(), api.WorkloadDelete{Names: args})
			if err != nil {
				return err
			}
			return c.printChanges(done)
		},
	}
}

// readPolicy is bounded by what the daemon takes.
func readPolicy(path string) (string, error) {
	in := io.Reader(os.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("--policy: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, 2<<20))
	if err != nil {
		return "", fmt.Errorf("--policy: %w", err)
	}
	return string(text), nil
}

func (c *cli) printChanges(done []api.WorkloadChange) error {
	if c.json() {
		return c.printJSON(done)
	}
	for _, d := range done {
		text := "workload " + d.Name + " is " + d.Change
		switch d.State {
		case api.WorkloadAttached:
			text += " and attached"
		case api.WorkloadWaiting:
			text += ": it waits for its interface, which is not there yet"
		case api.WorkloadRefused:
			text += " and REFUSED: " + d.Why
		}
		fmt.Fprintln(c.out, text)
	}
	return nil
}

func printWorkloads(c *cli, list []api.Workload) error {
	t := c.table("WORKLOAD", "ORIGIN", "INTERFACE", "STATE", "ADDRESSES", "PATH", "SNAT", "BANDWIDTH", "INGRESS", "EGRESS", "IN", "OUT", "DROPS", "FLOWS")
	for _, w := range list {
		link := w.Interface
		if w.Index != 0 {
			link += fmt.Sprintf(" (%d)", w.Index)
		}
		t.row(w.Name, w.Origin, link, w.State, joined(w.Addresses), w.Path, w.SNAT, bandwidthText(w.Bandwidth), policyText(w.Ingress, w.IngressRules), policyText(w.Egress, w.EgressRules),
			trafficText(w.In.Packets, w.In.Bytes), trafficText(w.Out.Packets, w.Out.Bytes), w.Drops.Packets, w.Flows)
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, w := range list {
		if w.Why != "" {
			fmt.Fprintf(c.out, "%s: %s\n", w.Name, w.Why)
		}
		if len(w.Announced) > 0 {
			fmt.Fprintf(c.out, "%s: snat: auto does not translate %s, which BGP announces\n", w.Name, joined(w.Announced))
		}
	}
	return nil
}

// bandwidthText is a rate as the file writes it.
func bandwidthText(bits uint64) string {
	for _, unit := range []struct {
		name string
		bits uint64
	}{{"Gbps", 1e9}, {"Mbps", 1e6}, {"kbps", 1e3}} {
		if bits >= unit.bits && bits%unit.bits == 0 {
			return fmt.Sprintf("%d%s", bits/unit.bits, unit.name)
		}
	}
	if bits == 0 {
		return "-"
	}
	return fmt.Sprintf("%dbps", bits)
}

// policyText is "drop after 3 rules", or the default alone.
func policyText(fate string, rules int) string {
	if rules == 0 {
		return fate
	}
	return fate + " after " + plural.Of(rules, "rule", "rules")
}
