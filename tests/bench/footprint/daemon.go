package main

import (
	"context"
	"errors"
	"time"

	"sluice/control/api"
	"sluice/tests/bench/lane"
	"sluice/tests/bench/node"
)

// daemon is a node whose memory and flows are looked at.
type daemon struct{ *node.Node }

// startDaemon starts one with a file and waits until that is applied.
func startDaemon(ctx context.Context, binary string, box *lane.Namespace, files map[string][]byte) (*daemon, error) {
	n, err := node.Start(ctx, binary, box, files)
	return &daemon{n}, err
}

// flows are the proven flows that its last sweep found.
func (d *daemon) flows(ctx context.Context) (int, error) {
	client := api.NewClient(d.Path("sock"))
	defer client.Close()
	s, err := api.Show[api.Status](ctx, client, "status")
	if err != nil || s.Conntrack == nil {
		return 0, err
	}
	return int(s.Conntrack.Flows.Entries), nil
}

// settled waits until its memory stays as it is: a second after the last change it gives back what that needed, and then
// makes a spare generation.
func (d *daemon) settled(ctx context.Context) (Resident, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var last Resident
	since := time.Now()
	err := node.Poll(ctx, 500*time.Millisecond, func() error {
		now, err := residentOf(d.PID)
		if err != nil {
			return err
		}
		if moved := now.RSS - last.RSS; moved > last.RSS/100 || -moved > last.RSS/100 {
			since = time.Now()
		}
		last = now
		if time.Since(since) < 3*time.Second {
			return errors.New("its memory still changes")
		}
		return nil
	})
	return last, err
}
