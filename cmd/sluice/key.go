package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/crypto/keys"
)

func (c *cli) keyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make WireGuard keys, and show their public halves",
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:     "gen FILE",
			Short:   "Make a private key, 0600, never overwriting one; prints the public key",
			Example: "  sluice key gen /var/lib/sluice/keys/fra1.key",
			Args:    cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				public, err := keys.Generate(args[0])
				return c.printKey(args[0], public, err)
			},
		},
		&cobra.Command{
			Use:     "psk FILE",
			Short:   "Make a preshared key, 0600, never overwriting one; both peers need a copy of the file",
			Example: "  sluice key psk /var/lib/sluice/keys/fra1.psk",
			Args:    cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				if err := keys.GeneratePSK(args[0]); err != nil {
					return err
				}
				if c.json() {
					return c.printJSON(map[string]string{"file": args[0]})
				}
				_, err := fmt.Fprintln(c.out, args[0])
				return err
			},
		},
		&cobra.Command{
			Use:     "show FILE",
			Short:   "Print the public key of a private key file",
			Example: "  sluice key show /var/lib/sluice/keys/fra1.key",
			Args:    cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				public, err := keys.PublicKey(args[0])
				return c.printKey(args[0], public, err)
			},
		},
	)
	return cmd
}

func (c *cli) printKey(file, public string, err error) error {
	if err != nil {
		return err
	}
	if c.json() {
		return c.printJSON(map[string]string{"file": file, "public_key": public})
	}
	_, err = fmt.Fprintln(c.out, public)
	return err
}
