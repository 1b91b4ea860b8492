package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/control/daemon"
	"sluice/plural"
)

func (c *cli) checkCmd() *cobra.Command {
	var schema bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a file and report what its policy costs",
		Long: `The file and its set files are looked at as if every interface that they name were there. The cost is how many loads
from tables one packet takes at most, and memory. Named are rules that can never act, because they match nothing or because
rules before them match all that they could, and those that change no verdict. The daemon is not asked: it need not run.

Exit code 1, and every error at once, where the file is bad; warnings leave it at 0.`,
		Example: `  sluice check -c new.yaml
  sluice check --schema > sluice.schema.json           # for an editor`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if schema {
				_, err := c.out.Write(daemon.Schema())
				return err
			}
			report, err := daemon.Check(cmd.Context(), c.file, c.settings.GetString("node.state_dir"))
			if problems := api.Problems(err); len(problems) > 0 && c.json() {
				report.Errors = problems
				return errors.Join(c.printJSON(report), errSilent)
			}
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(report)
			}
			return c.printReport(report)
		},
	}
	c.fileFlag(cmd)
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the file and exit")
	return cmd
}

// maxFindings bounds how many rules without effect the text names, by kind.
const maxFindings = 20

func (c *cli) printReport(r daemon.Report) error {
	fmt.Fprintf(c.out, "%s is good\n", r.File)
	t := c.table("OBJECT", "RULES", "ENTRIES", "CLASSES", "PREFIXES", "MEMORY")
	for _, o := range r.Objects {
		t.row(o.Name, o.Rules, o.Entries, o.Classes, o.Prefixes, bytesText(o.Bytes))
	}
	if err := t.print(); err != nil {
		return err
	}
	t = c.table("HOOK", "WORST PROBES")
	for _, h := range r.Hooks {
		t.row(h.Hook, h.Probes)
	}
	if err := t.print(); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "tables take %s, %s during a change; rule counters %s per possible CPU\n",
		bytesText(r.Memory.Tables), bytesText(r.Memory.TablesInSwap), bytesText(r.Memory.CountersPerCPU))
	for _, w := range r.Warnings {
		fmt.Fprintf(c.out, "warning: %s\n", w)
	}
	c.printOddRules("warning", r.Findings, false)
	c.printOddRules("note", r.Findings, true)
	return nil
}

func (c *cli) printOddRules(word string, all []daemon.Finding, redundant bool) {
	n := 0
	for _, f := range all {
		if f.Redundant() != redundant {
			continue
		}
		if n++; n <= maxFindings {
			fmt.Fprintf(c.out, "%s: %s/%s%s: %s\n", word, f.Policy, f.Rule, lineText(f.File, f.Line), f.Message)
		}
	}
	if n > maxFindings {
		fmt.Fprintf(c.out, "%s: and %s: `sluice check -o json` names them\n", word, plural.Of(n-maxFindings, "more such rule", "more such rules"))
	}
}
