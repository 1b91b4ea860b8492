package main

import (
	"github.com/spf13/cobra"

	"sluice/control/daemon"
)

func (c *cli) runCmd() *cobra.Command {
	var maintenance bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `It runs in the foreground. The last confirmed revision is the truth; the file is read only when there
is none yet. On SIGTERM the data path, the tunnels and, with graceful restart, the routes stay in place. As a service of
type notify it tells systemd when it is ready, and feeds its watchdog while API and engine answer.`,
		Example: "  sluice run -c /etc/sluice/sluice.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := c.logger()
			if err != nil {
				return err
			}
			return daemon.Run(cmd.Context(), daemon.Options{
				File: c.file, StateDir: c.settings.GetString("node.state_dir"), BPFDir: c.settings.GetString("node.bpf_dir"),
				Socket: c.socket(), Version: version, Log: log, TunnelCommand: tunnelCommand(), BFDCommand: bfdCommand(),
				Maintenance: maintenance, Image: c.image(),
			})
		},
	}
	c.fileFlag(cmd)
	cmd.Flags().BoolVar(&maintenance, "maintenance", false, "where no revision can be brought about, forward nothing and wait for an apply, instead of ending")
	return cmd
}
