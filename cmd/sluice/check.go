package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/control/daemon"
)

func (c *cli) checkCmd() *cobra.Command {
	var schema bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a file and report what its policy costs",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if schema {
				_, err := c.out.Write(daemon.Schema())
				return err
			}
			report, err := daemon.Check(cmd.Context(), c.file)
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
