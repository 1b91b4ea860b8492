package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/control/daemon"
	"sluice/control/host"
)

func (c *cli) doctorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine and its NICs can do, and what is missing",
		Long: `With what that costs, and what to do about it. Changes nothing. A daemon that runs is asked whether its flow tables have room, and for
its configuration: where that has tunnels, what they need is tried, in network namespaces that nobody else sees. Without a daemon, or
with -c, that is FILE's. Exit code 1 when something is missing that Sluice cannot do without.`,
		Example: "  sluice doctor\n  sluice doctor -c new.yaml       # whether this machine can do what a file asks for",
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := daemon.Doctor(cmd.Context(), c.doctorOptions(cmd, c.places(cmd)))
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
	c.fileFlag(cmd)
	return cmd
}

// places are the directories of an instance.
type places struct {
	state, bpf string
	status     func(context.Context) (api.Status, error) // that its daemon gives, or has given
}

// places are those of the daemon that answers, unless the operator says which are meant: by a file, by flags or the environment.
func (c *cli) places(cmd *cobra.Command) places {
	said := func(flag, env string) bool { return cmd.Flags().Changed(flag) || os.Getenv(env) != "" }
	ask := func(ctx context.Context) (api.Status, error) { return api.Show[api.Status](ctx, c.client(), "status") }
	p := places{c.settings.GetString("node.state_dir"), c.settings.GetString("node.bpf_dir"), ask}
	if cmd.Flags().Changed("config") {
		return p
	}
	s, err := ask(cmd.Context())
	p.status = func(context.Context) (api.Status, error) { return s, err }
	if err != nil {
		return p
	}
	if !said("state-dir", "SLUICE_STATE_DIR") {
		p.state = cmp.Or(s.StateDir, p.state)
	}
	if !said("bpf-dir", "SLUICE_BPF_DIR") {
		p.bpf = cmp.Or(s.BPFDir, p.bpf)
	}
	return p
}

// doctorOptions: the file comes first where the operator named it.
func (c *cli) doctorOptions(cmd *cobra.Command, at places) daemon.DoctorOptions {
	return daemon.DoctorOptions{
		BPFDir: at.bpf, File: c.file, FileFirst: cmd.Flags().Changed("config"),
		Status: at.status,
		Config: func(ctx context.Context) (api.StoredConfig, error) { return c.client().Config(ctx, 0) },
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
