package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sluice/control/api"
)

// Node is a host that runs a daemon: the gateway or the peer.
type Node struct {
	*Namespace
	File     string // its configuration
	StateDir string
	BPFDir   string
	Socket   string

	daemon *Process
}

func (s *Site) node(ns *Namespace) *Node {
	return &Node{
		Namespace: ns,
		File:      filepath.Join(s.Dir, ns.role+".yaml"),
		StateDir:  filepath.Join(s.Dir, ns.role),
		BPFDir:    filepath.Join(s.BPFDir(), ns.role),
		Socket:    filepath.Join(s.Dir, ns.role+".sock"),
	}
}

// StartDaemon starts the daemon and does not wait for it.
func (n *Node) StartDaemon() error { return n.StartDaemonOf(n.site.options.Binary) }

// StartDaemonOf is StartDaemon with another binary than the lab's: an upgrade.
func (n *Node) StartDaemonOf(binary string) error {
	daemon, err := n.Command(n.role, binary, "run", "-c", n.File,
		"--state-dir", n.StateDir, "--bpf-dir", n.BPFDir, "--socket", n.Socket)
	n.daemon = daemon
	return err
}

// KillDaemon is kill -9, and waits until the process is gone.
func (n *Node) KillDaemon() error {
	if n.daemon == nil {
		return nil
	}
	return n.daemon.Kill()
}

// Daemon is the process that StartDaemon started last.
func (n *Node) Daemon() *Process { return n.daemon }

// API is a client of the daemon.
func (n *Node) API() *api.Client { return api.NewClient(n.Socket) }

// WaitReady waits until the daemon answers and has applied a revision, and returns its status.
func (n *Node) WaitReady(ctx context.Context) (api.Status, error) {
	client := n.API()
	defer client.Close()
	var status api.Status
	err := poll(ctx, func() (err error) {
		select {
		case <-n.daemon.Done():
			return fatal(fmt.Errorf("the daemon of %s has ended; its log ends:\n%s", n.role, tail(n.daemon.Log, 4000)))
		default:
		}
		if status, err = api.Show[api.Status](ctx, client, "status"); err == nil && !status.Engine.Applied {
			err = fmt.Errorf("revision %d is not applied: %s", status.Engine.Revision, status.Engine.LastError)
		}
		return err
	})
	if err != nil {
		return status, fmt.Errorf("wait for the daemon of %s: %w", n.role, err)
	}
	return status, nil
}

// fatalError ends a poll at once.
type fatalError struct{ error }

func fatal(err error) error { return fatalError{err} }

// pollInterval is short beside everything that is waited for.
const pollInterval = 20 * time.Millisecond

// poll calls f until it returns nil or ctx ends, and then returns f's last complaint.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		err := f()
		var end fatalError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &end):
			return end.error
		case ctx.Err() == nil || last == nil:
			last = err // and not that its time was over in the midst of the last try
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
