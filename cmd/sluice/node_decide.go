package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/control/daemon"
	"sluice/control/node/source"
)

func (c *cli) nodeDecideCmd() *cobra.Command {
	o := source.DecideOptions{Now: time.Now, Sleep: source.Sleep}
	cmd := &cobra.Command{
		Use:   "decide",
		Short: "Apply this boot's configuration on trial, where it was not met before",
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := c.logger()
			if err != nil {
				return err
			}
			o.Log, o.StateDir, o.Daemon = log, c.stateDir(), trialDaemon{c.client()}
			b, err := source.Decide(cmd.Context(), o)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s: nothing was found at boot: run `sluice node source` first", o.Dir)
			} else if err != nil {
				return err
			}
			return c.printJSON(b)
		},
	}
	bootDirFlag(cmd, &o.Dir)
	return cmd
}

// trialDaemon is the daemon behind its API, for trials.
type trialDaemon struct{ *api.Client }

func (d trialDaemon) Status(ctx context.Context) (api.EngineStatus, error) {
	s, err := api.Show[api.Status](ctx, d.Client, "status")
	return s.Engine, err
}

// Apply tells a definite no from an apply that was broken off.
func (d trialDaemon) Apply(ctx context.Context, file, message string, confirm time.Duration) (api.Result, error) {
	candidate, judge, err := daemon.Collect(file)
	if err != nil { // the file itself
		return api.Result{}, fmt.Errorf("%w: %w", source.ErrRefused, err)
	}
	r, err := d.Client.Apply(ctx, api.ApplyRequest{Candidate: candidate, ConfirmSeconds: confirm.Seconds(), Message: message, Author: "sluice"})
	var no *api.Failure
	if errors.As(err, &no) && no.Refused && !strings.Contains(no.Message, context.Canceled.Error()) {
		return r, fmt.Errorf("%w: %w", source.ErrRefused, refusal(err, judge))
	}
	return r, err
}

func (d trialDaemon) Confirm(ctx context.Context) error {
	_, err := d.Client.Confirm(ctx)
	return err
}
