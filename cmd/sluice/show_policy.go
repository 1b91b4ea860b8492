package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

// policyView is what of the policies is to be seen.
type policyView struct {
	name   string // "": all
	unused bool
	top    int // 0: all, in their order
}

func (c *cli) showPolicyCmd(help string) *cobra.Command {
	var view policyView
	cmd := &cobra.Command{
		Use:   "policy [POLICY]",
		Short: "Show " + help,
		Long: `The rules are in the order in which packets meet them, with what each has matched and when it last did. POLICY is
failsafe, system, ingress, egress, workload/NAME, or workload/NAME/ingress and workload/NAME/egress.

A rule in shadow mode counts what it would have acted on, and where it is a limit, as shadow drops, what it would have dropped. A default does not count the replies that tracked flows let in.`,
		Example: `  sluice show policy ingress --top 10
  sluice show policy --unused`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				view.name = args[0]
			}
			policies, err := api.Show[[]api.Policy](cmd.Context(), c.client(), "policy")
			if err != nil {
				return err
			}
			seen, err := view.of(policies)
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(seen)
			}
			return view.print(c, policies, seen)
		},
	}
	cmd.Flags().BoolVar(&view.unused, "unused", false, "only the rules that never matched")
	cmd.Flags().Var(number[int]{&view.top, math.MaxInt32, "10"}, "top", "only the `N` rules of each policy that matched most, those first")
	return cmd
}

// of picks policies and their rules; it changes none of those given.
func (v policyView) of(policies []api.Policy) ([]api.Policy, error) {
	out := []api.Policy{}
	for _, p := range policies {
		if v.name != "" && !api.InPolicy(p.Name, v.name) {
			continue
		}
		p.Rules = slices.Clone(p.Rules)
		if v.unused {
			p.Rules = slices.DeleteFunc(p.Rules, func(r api.Rule) bool { return r.Packets > 0 })
		}
		if v.top > 0 {
			slices.SortStableFunc(p.Rules, func(a, b api.Rule) int { return cmp.Compare(b.Packets, a.Packets) })
			p.Rules = p.Rules[:min(v.top, len(p.Rules))]
		}
		out = append(out, p)
	}
	if len(out) == 0 && v.name != "" {
		return nil, fmt.Errorf("there is no policy %q: there are %s", v.name, policyNames(policies))
	}
	return out, nil
}

func policyNames(policies []api.Policy) string {
	var names []string
	for _, p := range policies[:min(len(policies), 12)] {
		names = append(names, p.Name)
	}
	if more := len(policies) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// print writes a table and a summary for each policy; the summary is of all its rules, shown or not.
func (v policyView) print(c *cli, all, seen []api.Policy) error {
	whole := map[string]api.Policy{}
	for _, p := range all {
		whole[p.Name] = p
	}
	for _, p := range seen {
		fmt.Fprintf(c.out, "%s, default %s%s\n", p.Name, p.Default, c.defaultText(p))
		if len(p.Rules) > 0 {
			t := c.table("  #", "RULE", "ACTION", "PACKETS", "BYTES", "LAST HIT", "MATCH")
			for _, r := range p.Rules {
				action := r.Action
				if r.Shadow {
					action = "would " + action
				}
				if r.ShadowDrops > 0 {
					action += fmt.Sprintf(" (%d shadow drops)", r.ShadowDrops)
				}
				if r.LimitDrops > 0 {
					action += fmt.Sprintf(" (%d dropped)", r.LimitDrops)
				}
				t.row(fmt.Sprintf("  %d", r.Position), r.Name, action, r.Packets, r.Bytes, c.lastHit(r.Hits), r.Match)
			}
			if err := t.print(); err != nil {
				return err
			}
		}
		fmt.Fprintln(c.out, "  "+summary(whole[p.Name], len(p.Rules)))
	}
	return nil
}

func (c *cli) defaultText(p api.Policy) string {
	if p.DefaultHits == nil {
		return ""
	}
	return fmt.Sprintf(": %s, %s, last %s", plural.Of(p.DefaultHits.Packets, "packet", "packets"), bytesText(int64(p.DefaultHits.Bytes)), c.lastHit(*p.DefaultHits))
}

// lastHit tells never from what an earlier version counted, which kept no time.
func (c *cli) lastHit(h api.Hits) string {
	switch {
	case h.LastHit != nil:
		return c.since(*h.LastHit) + " ago"
	case h.Packets > 0:
		return "unknown"
	default:
		return "never"
	}
}

func summary(p api.Policy, shown int) string {
	var shadow, unused int
	for _, r := range p.Rules {
		if r.Shadow {
			shadow++
		}
		if r.Packets == 0 {
			unused++
		}
	}
	text := fmt.Sprintf("%s, %d never hit", plural.Of(len(p.Rules), "rule", "rules"), unused)
	if len(p.Rules) == 0 {
		text = "no rules"
	}
	if shadow > 0 {
		text += fmt.Sprintf(", %d in shadow mode", shadow)
	}
	if shown < len(p.Rules) {
		text += fmt.Sprintf("; %d shown", shown)
	}
	return text
}
