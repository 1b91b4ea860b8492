package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// nodeGateCmd is sluice-gate.service and sluice-record.service of the node image.
func (c *cli) nodeGateCmd() *cobra.Command {
	var record bool
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "gate",
		Short: "Judge an update that runs on trial, or record what it must not lose",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if within <= 0 {
				return usageError{fmt.Errorf("--within %s: say how long an update may take to be well, such as 5m", within)}
			}
			log, err := c.logger()
			if err != nil {
				return err
			}
			m, err := c.machine()
			if err != nil {
				return err
			}
			if record {
				return m.Record(cmd.Context(), gated{c.client()})
			}
			return m.Gate(cmd.Context(), gated{c.client()}, within, log)
		},
	}
	cmd.Flags().BoolVar(&record, "record", false, "record which neighbors are up, and judge nothing")
	cmd.Flags().DurationVar(&within, "within", 5*time.Minute, "how long an update may take to be well, as a `TIME`")
	return cmd
}
