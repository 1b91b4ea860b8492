package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/lab"
)

func (c *cli) labCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "A virtual site of network namespaces on this machine",
		Long: `A ToR router, a client, an attacker, a gateway with two workloads and a peer
node, each in a network namespace of its own. The gateway and the peer are real daemons.`,
	}
	cmd.AddCommand(c.labRunCmd(), c.labUpCmd(), c.labDownCmd(), c.labTorCmd(), c.labServeCmd())
	return cmd
}

func (c *cli) labOptions() (lab.Options, error) {
	log, err := c.logger()
	return lab.Options{Log: log}, err
}

func (c *cli) labRunCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "run",
		Short:   "Build the site, show line by line what the gateway does, take the site down",
		Long:    "Exit code 1 where a line does not hold.",
		Example: "  sluice lab run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := c.labOptions()
			if err != nil {
				return err
			}
			err = lab.Run(cmd.Context(), options, c.out)
			if errors.Is(err, lab.ErrDoesNotHold) && err.Error() == lab.ErrDoesNotHold.Error() {
				return errSilent // the crosses have said it
			}
			return err
		},
	}
}

func (c *cli) labUpCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "up",
		Short:   "Build the site and leave it running to play with",
		Long:    "It says how to speak to the gateway, and how to take the site down.",
		Example: "  sluice lab up",
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := c.labOptions()
			if err != nil {
				return err
			}
			return lab.Up(cmd.Context(), options, c.out)
		},
	}
}

func (c *cli) labDownCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "down [ID...]",
		Short:   "Remove the sites that were left up, and what crashed ones left behind",
		Example: "  sluice lab down\n  sluice lab down k3x9",
		Args:    cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, ids []string) error {
			said, err := lab.Down("", ids...)
			for _, line := range said {
				fmt.Fprintln(c.out, line)
			}
			switch {
			case err != nil || len(said) > 0:
				return err
			case len(ids) > 0:
				return fmt.Errorf("there is no lab %s", strings.Join(ids, " "))
			}
			fmt.Fprintln(c.out, "there is no lab")
			return nil
		},
	}
}

// labTorCmd and labServeCmd are processes of the site, which `lab` starts.
func (c *cli) labTorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "tor",
		Short:  "The ToR's router",
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := c.logger()
			if err != nil {
				return err
			}
			socket, _ := cmd.Flags().GetString("listen")
			return lab.RunRouter(cmd.Context(), socket, log)
		},
	}
	cmd.Flags().String("listen", "", "the unix socket that shows the table")
	return cmd
}

func (c *cli) labServeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "serve",
		Short:  "A host's HTTP and DNS servers",
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, _ := cmd.Flags().GetString("name")
			return lab.RunServers(cmd.Context(), name)
		},
	}
	cmd.Flags().String("name", "", "what the host calls itself in its answers")
	return cmd
}
