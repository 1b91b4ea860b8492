package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/control/daemon"
)

func (c *cli) checkCmd() *cobra.Command {
	var schema bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a file and report what its policy costs",
		Long: `Check a file and its set files, as if every interface that it names were there, and report what its policy
costs. Nothing is asked of the daemon or the machine. Exit code 1 and every error at once where the file is bad.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if schema {
				_, err := c.out.Write(daemon.Schema())
				return err
			}
			report, err := daemon.Check(cmd.Context(), c.file)
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

func (c *cli) printReport(r daemon.Report) error {
	fmt.Fprintf(c.out, "%s is good\n", r.File)
	t := c.table("OBJECT", "ENTRIES", "CLASSES", "PREFIXES", "MEMORY", "WORST PROBES")
	for _, o := range r.Objects {
		t.row(o.Name, o.Entries, o.Classes, o.Prefixes, bytesText(o.Bytes), o.WorstProbes)
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(c.out, "warning: %s\n", w)
	}
	return nil
}
