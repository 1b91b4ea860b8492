package main

import (
	"context"
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/control/node/slots"
)

func (c *cli) imageCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Update the node image, go back, and sign images",
	}
	cmd.AddCommand(c.imageStatusCmd(), c.imageInstallCmd(), c.imageRollbackCmd(), c.imagePromoteCmd(), c.imageKeygenCmd(), c.imageSignCmd(), c.imageRecoveryKeyCmd())
	return cmd
}

// machine is the node that this runs on; an error on any other system.
func (c *cli) machine() (*slots.Machine, error) {
	return slots.Open(c.slots(c.stateDir()))
}

// image is the version of the node image that this runs on, "" on any other system.
func (c *cli) image() string {
	version, _ := slots.Runs(c.slots(c.stateDir()).OSRelease) // without an os-release it is another one
	return version
}

// gated is the daemon as the health gate asks it.
type gated struct{ *api.Client }

func (g gated) Status(ctx context.Context) (api.Status, error) {
	return api.Show[api.Status](ctx, g.Client, "status")
}

func (g gated) Neighbors(ctx context.Context) ([]api.Neighbor, error) {
	return api.Show[[]api.Neighbor](ctx, g.Client, "bgp")
}

func systemctlReboot(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "systemctl", "reboot").CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl reboot: %w: %s", err, out)
	}
	return nil
}

func (c *cli) imageStatusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the two slots: which version runs, which one a reboot starts, and why an update went back",
		Long: `A slot is good (it passed its health gate, or came with the disk), staged (not tried yet), trying (tried, and not decided), failed (no
tries left: a reboot passes it over) or aside (good, and behind the other by rollback or after a downgrade).`,
		Example: "  sluice image status",
		RunE: func(*cobra.Command, []string) error {
			m, err := c.machine()
			if err != nil {
				return err
			}
			s, err := m.Status()
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(s)
			}
			return c.imageStatus(s)
		},
	}
}

func (c *cli) imageStatus(s slots.Status) error {
	trial := ""
	if s.Trial {
		trial = ", on trial: its health gate decides"
	}
	fmt.Fprintf(c.out, "running  %s%s\n", s.Running, trial)
	fmt.Fprintf(c.out, "reboot   %s\n", said(s.Next, "nothing that this node knows"))
	if s.Forced != "" {
		fmt.Fprintf(c.out, "forced   %s: the boot loader is told so, whatever the slots say\n", s.Forced)
	}
	if s.Note != "" {
		fmt.Fprintf(c.out, "note     %s\n", s.Note)
	}
	fmt.Fprintln(c.out)
	t := c.table("VERSION", "STATE", "TRIES LEFT", "RUNS", "REBOOT", "SIZE", "FILE")
	for _, one := range s.Slots {
		left := ""
		if one.TriesLeft != nil {
			left = fmt.Sprint(*one.TriesLeft)
		}
		t.row(one.Version, one.State, left, yesNo(one.Running), yesNo(one.Next), bytesText(one.Bytes), one.File)
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, one := range s.Slots {
		if one.Why != "" {
			fmt.Fprintf(c.out, "\n%s: %s\n", one.Version, one.Why)
		}
	}
	return nil
}

func said(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func (c *cli) imageInstallCmd() *cobra.Command {
	var o slots.InstallOptions
	var reboot bool
	cmd := &cobra.Command{
		Use:   "install FILE|URL",
		Short: "Verify an image, and stage it as the other slot",
		Long: `The file is a unified kernel image (.efi) with its signature beside it (.efi.sig), or an https or http URL of one; proxies are taken from the
environment. Signature, architecture, version and room are checked before anything is written; the slot that runs is never touched.
A reboot tries it three times, and keeps it once its health gate passes: the daemon ready, the configuration applied, the BGP
neighbors that were up before up again, apply.checks answered. Else the old version comes back by itself. An older version
(--downgrade) is tried once.`,
		Example: "  sluice image install https://images.example.net/sluice_1.3.efi --reboot\n  sluice image install /run/media/sluice_1.3.efi",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := c.machine()
			if err != nil {
				return err
			}
			in, err := m.Install(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			if err := m.Record(cmd.Context(), gated{c.client()}); err != nil {
				fmt.Fprintf(c.err, "what works now is not recorded, so the health gate may ask for less: %v\n", err)
			}
			if c.json() {
				err = c.printJSON(in)
			} else {
				c.installed(in, reboot)
			}
			if err != nil || !reboot {
				return err
			}
			return c.reboot(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&o.Downgrade, "downgrade", false, "take a version that is older than the one that runs")
	cmd.Flags().BoolVar(&o.Unsigned, "unsigned", false, "take it without a signature, on a node that has no key to check one with")
	cmd.Flags().BoolVar(&reboot, "reboot", false, "reboot into it at once")
	return cmd
}

func (c *cli) installed(in slots.Installed, reboot bool) {
	by := ", signed by key " + in.Key
	if in.Key == "" {
		by = ", NOT SIGNED"
	}
	fmt.Fprintf(c.out, "version %s is staged beside %s, which runs%s\n", in.Version, in.Running, by)
	switch {
	case in.Next != in.Version:
		fmt.Fprintf(c.out, "a reboot starts %s: see `sluice image status`\n", in.Next)
	case reboot:
		fmt.Fprintln(c.out, "rebooting into it")
	default:
		fmt.Fprintf(c.out, "a reboot tries it; if its health gate does not pass, %s comes back by itself\n", in.Running)
	}
}

func (c *cli) imageRollbackCmd() *cobra.Command {
	return c.markCmd("rollback", "Have the next boots start the other slot",
		`The version that runs stays on the disk, behind the other (aside); another rollback, or promote, puts it first again. What the
configuration, keys and bans are does not go back with it.`, (*slots.Machine).Rollback)
}

func (c *cli) imagePromoteCmd() *cobra.Command {
	return c.markCmd("promote", "Keep the version that runs: end its trial as passed, and have the next boots start it",
		`For an update whose health gate asks for what is gone for other reasons, such as a neighbor that was taken out of service. It also takes back
a rollback that was not rebooted into, and an update that is staged.`, (*slots.Machine).Promote)
}

func (c *cli) markCmd(name, short, long string, do func(*slots.Machine) (slots.Marked, error)) *cobra.Command {
	var reboot bool
	cmd := &cobra.Command{
		Use: name, Short: short, Long: long,
		Example: "  sluice image " + name,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := c.machine()
			if err != nil {
				return err
			}
			marked, err := do(m)
			if err != nil {
				return err
			}
			if c.json() {
				err = c.printJSON(marked)
			} else {
				fmt.Fprintf(c.out, "the next boots start version %s; %s runs\n", marked.Next, marked.Running)
			}
			if err != nil || !reboot {
				return err
			}
			return c.reboot(cmd.Context())
		},
	}
	if name == "rollback" {
		cmd.Flags().BoolVar(&reboot, "reboot", false, "reboot into it at once")
	}
	return cmd
}
