package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/node/source"
)

func (c *cli) nodeSourceCmd() *cobra.Command {
	o := source.Options{Now: time.Now, Disk: "/run/sluice-data"}
	var seen time.Duration
	cmd := &cobra.Command{
		Use:   "source",
		Short: "Find the configuration that this node boots with",
		Long: `In this order: the systemd credential sluice.config (from SMBIOS or fw_cfg), a USB stick with the label SLUICE-CONFIG (on FAT
SLUICE-CONF), the configuration partition, none. What was found is copied to --dir, with the set files beside it. Media are
never written to. What is wrong with a source is told, and is no failure.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := c.logger()
			if err != nil {
				return err
			}
			o.Log, o.StateDir, o.Credentials = log, c.stateDir(), os.Getenv("CREDENTIALS_DIRECTORY")
			o.Media = source.Disks{Dir: o.Dir + ".media"}
			o.Wait = max(0, seen-uptime())
			r, err := source.Find(cmd.Context(), o)
			if err != nil {
				return err
			}
			return c.printJSON(r)
		},
	}
	bootDirFlag(cmd, &o.Dir)
	cmd.Flags().DurationVar(&seen, "wait", 15*time.Second, "how long after the kernel's start a USB stick may be seen, as a `TIME`")
	return cmd
}
