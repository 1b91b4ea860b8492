package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/control/host"
)

func (c *cli) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine and its NICs can do, and what is missing",
		Long: `With what that costs, and what to do about it. Changes nothing. Exit code 1 when something is missing that Sluice cannot do
without.`,
		Example: "  sluice doctor",
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := host.Doctor(cmd.Context(), host.DoctorOptions{BPFDir: c.settings.GetString("node.bpf_dir")})
			if c.json() {
				if err := c.printJSON(findings); err != nil {
					return err
				}
			} else if err := c.printFindings(findings); err != nil {
				return err
			}
			for _, f := range findings {
				if f.Status == host.StatusMissing {
					return errSilent
				}
			}
			return nil
		},
	}
}

func (c *cli) printFindings(findings []host.Finding) error {
	for _, f := range findings {
		fmt.Fprintf(c.out, "%-8s %-18s %s\n", f.Status, f.Name, f.Detail)
		for _, more := range []string{f.Cost, f.Fix} {
			if more != "" {
				fmt.Fprintf(c.out, "%-8s %-18s %s\n", "", "", more)
			}
		}
	}
	return nil
}
