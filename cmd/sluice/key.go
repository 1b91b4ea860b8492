package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"sluice/crypto/keys"
)

func (c *cli) keyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make keys of tunnels, show their public halves, and have tunnels take new ones",
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:     "gen FILE",
			Short:   "Make a private key, 0600, never overwriting one; prints the public key",
			Example: "  sluice key gen /var/lib/sluice/keys/fra1.key",
			Args:    cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				if err := c.tightenKeys(args[0]); err != nil {
					return err
				}
				public, err := keys.Generate(args[0])
				return c.printKey(args[0], public, err)
			},
		},
		c.secretCmd("psk", "Make a preshared key (WireGuard, IKE), 0600, never overwriting one; both peers need a copy"),
		c.secretCmd("master", "Make a master key (static IPsec), 0600, never overwriting one; both peers need a copy"),
		c.rotateCmd(),
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

// secretCmd makes a secret that both ends share.
func (c *cli) secretCmd(name, short string) *cobra.Command {
	return &cobra.Command{
		Use:     name + " FILE",
		Short:   short,
		Example: fmt.Sprintf("  sluice key %s /var/lib/sluice/keys/fra1.%[1]s", name),
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := c.tightenKeys(args[0]); err != nil {
				return err
			}
			if err := keys.GeneratePSK(args[0]); err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(map[string]string{"file": args[0]})
			}
			_, err := fmt.Fprintln(c.out, args[0])
			return err
		},
	}
}

// tightenKeys looks after the node's own directory of keys, if that is where file is, and says what it did.
func (c *cli) tightenKeys(file string) error {
	dir := keys.OwnDir(c.settings.GetString("node.state_dir"))
	if filepath.Dir(filepath.Clean(file)) != dir {
		return nil
	}
	was, err := keys.Tighten(dir)
	if was != 0 {
		fmt.Fprintf(c.err, "others could look into %s (mode %04o): its mode is 0700 again\n", dir, was)
	}
	return err
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
