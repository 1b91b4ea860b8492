package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"

	"github.com/spf13/cobra"
)

// dataPartition is where udev has the image's data partition.
const dataPartition = "/dev/disk/by-partlabel/sluice-data"

func (c *cli) imageRecoveryKeyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "recovery-key",
		Short: "Make the key that opens the encrypted data partition where the TPM does not, and print it this once",
		Long: `For a node of an image that was built with ENCRYPT=yes. The key that was there before is void. It is kept nowhere on the node: write it
down. When the mainboard was replaced, or Secure Boot's keys were, put it as the file recovery-key on the configuration partition:
the next boot opens the data partition with it, binds that to the TPM that is there then, and makes the key void.`,
		Example: "  sluice image recovery-key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := c.machine(); err != nil {
				return err
			}
			if _, err := os.Stat(dataPartition); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("this node has no data partition (%s): it was booted over the network, or its disk is held (see the console)", dataPartition)
			}
			enroll := exec.CommandContext(cmd.Context(), "systemd-cryptenroll", "--unlock-tpm2-device=auto", "--wipe-slot=recovery", "--recovery-key", dataPartition)
			enroll.Stdout, enroll.Stderr = c.out, c.err
			if err := enroll.Run(); err != nil {
				return fmt.Errorf("no recovery key was made (the partition is not encrypted, or this machine's TPM does not open it): systemd-cryptenroll: %w", err)
			}
			return nil
		},
	}
}
