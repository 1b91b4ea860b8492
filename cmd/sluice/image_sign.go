package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/control/node/slots"
)

func (c *cli) imageKeygenCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make the keys that sign images, for nodes and for their firmware; none is overwritten",
		Long: `FILE signs updates, and FILE.uefi.key what the firmware starts under Secure Boot: both stay with whoever builds images. make image SIGN=FILE
uses them, and puts FILE.pub into the image, and FILE.uefi.crt on its disk, where systemd-boot enrolls it. On nodes that are to trust
another key besides, FILE.pub goes into /var/lib/sluice/keys/image.d. All are PEM: Ed25519, and RSA of 2048 bits, which all firmware has.`,
		Example: "  sluice image keygen release.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := slots.GenerateKey(args[0])
			if err != nil {
				return err
			}
			return c.printSigned(map[string]string{"file": args[0], "public": args[0] + ".pub", "firmware": args[0] + ".uefi.crt", "key": id},
				fmt.Sprintf("%[1]s %[1]s.pub %[1]s.uefi.key %[1]s.uefi.crt: key %[2]s", args[0], id))
		},
	}
}

func (c *cli) imageSignCmd() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:     "sign --key KEY FILE",
		Short:   "Sign an image: writes FILE.sig",
		Example: "  sluice image sign --key release.key sluice_1.3.efi",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return usageError{fmt.Errorf("which key signs? --key FILE; `sluice image keygen FILE` makes one")}
			}
			id, err := slots.Sign(key, args[0])
			if err != nil {
				return err
			}
			return c.printSigned(map[string]string{"file": args[0], "signature": args[0] + ".sig", "key": id}, fmt.Sprintf("%s.sig: by key %s", args[0], id))
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "the private key's `FILE`")
	return cmd
}

func (c *cli) printSigned(v map[string]string, line string) error {
	if c.json() {
		return c.printJSON(v)
	}
	_, err := fmt.Fprintln(c.out, line)
	return err
}
