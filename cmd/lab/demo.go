package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sluice/control/api"
)

// ErrDoesNotHold: at least one line of the demo has a cross.
var ErrDoesNotHold = errors.New("not every line of the demo holds")

var errInterrupted = errors.New("interrupted: the lab is taken down")

// stepTimeout bounds each step: long enough for BGP's slowest retry on a busy machine.
const stepTimeout = 30 * time.Second

// demo is one run.
type demo struct {
	*Site
	*report
	gateway *api.Client
	started time.Time // of the daemons
	stream  *Stream   // a client that never stops, from the first answer on
	noted   string    // more that the current step has to say, below its line
}

// step is one line: it returns its figures, and what is wrong with them.
type step struct {
	name string
	run  func(*demo, context.Context) (string, error)
}

var steps = []step{
	{"daemons", (*demo).daemons},
	{"bgp", (*demo).bgp},
	{"http", (*demo).http},
	{"flood", (*demo).flood},
	{"egress", (*demo).egress},
	{"own", (*demo).own},
	{"tunnel", (*demo).tunnel},
	{"explain", (*demo).explain},
	{"restart", (*demo).restart},
	{"client", (*demo).client},
}

// Run builds a site, shows line by line what the gateway does, and takes the site down again, whatever happened.
func Run(ctx context.Context, o Options, out io.Writer) (err error) {
	r := newReport(out)
	o.Detached = false
	site, err := New(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	if err := sweep(site.options.Dir); err != nil {
		site.log.Warn("what a killed lab left could not be removed: try `sluice lab down`", "error", err)
	}
	fmt.Fprintf(out, "lab %s: %d network namespaces, built in %s\n\n", site.ID, len(site.Namespaces()), round(time.Since(r.start)))

	d := &demo{Site: site, report: r, gateway: site.Gateway.API()}
	defer d.gateway.Close()
	defer func() {
		if d.stream != nil {
			d.stream.Stop()
		}
	}()
	for _, s := range steps {
		if err := d.step(ctx, s); err != nil {
			return err
		}
		if s.name == "daemons" && d.held == 0 {
			break // nothing to look at
		}
	}
	if daemon := d.Gateway.Daemon(); d.held < d.lines && daemon != nil {
		fmt.Fprintln(out, "\nthe gateway's log ends:")
		d.detail(tail(daemon.Log, 4000))
	}
	if !d.summary(len(steps)) {
		return ErrDoesNotHold
	}
	return nil
}

// step runs one and prints its line. Its error is that the demo is to end.
func (d *demo) step(ctx context.Context, s step) error {
	limited, cancel := context.WithTimeoutCause(ctx, stepTimeout, fmt.Errorf("not within %s", stepTimeout))
	defer cancel()
	figures, err := s.run(d, limited)
	if ctx.Err() != nil {
		return errInterrupted
	}
	d.line(s.name, figures, err)
	d.detail(d.noted)
	d.noted = ""
	return nil
}

// daemons starts the gateway and the peer.
func (d *demo) daemons(ctx context.Context) (string, error) {
	d.started = time.Now()
	if err := errors.Join(d.Peer.StartDaemon(), d.Gateway.StartDaemon()); err != nil {
		return "", err
	}
	status, err := d.Gateway.WaitReady(ctx)
	if err != nil {
		return "", err
	}
	took := time.Since(d.started)
	if _, err := d.Peer.WaitReady(ctx); err != nil {
		return "", err
	}
	uplink, err := d.uplink(ctx)
	if err != nil {
		return "", err
	}
	mode := "XDP " + uplink.XDPMode
	if uplink.XDPWhy != "" {
		mode += " (" + uplink.XDPWhy + ")"
	}
	figures := fmt.Sprintf("gateway and peer are up, revision %d applied after %s, %s on %s", status.Engine.Revision, round(took), mode, uplink.Name)
	if uplink.XDPMode != "native" && uplink.XDPMode != "generic" {
		return figures, errors.New("no XDP program on the uplink")
	}
	return figures, nil
}

func (d *demo) uplink(ctx context.Context) (api.Interface, error) {
	interfaces, err := api.Show[[]api.Interface](ctx, d.gateway, "interfaces")
	if err != nil {
		return api.Interface{}, err
	}
	for _, i := range interfaces {
		if i.Name == "eth0" {
			return i, nil
		}
	}
	return api.Interface{}, errors.New("show interfaces does not name eth0")
}

// reason reads one counter of the gateway; one that counted nothing yet is 0.
func (d *demo) reason(ctx context.Context, hook, link, reason string) (api.Reason, error) {
	reasons, err := api.Show[[]api.Reason](ctx, d.gateway, "reasons")
	if err != nil {
		return api.Reason{}, err
	}
	for _, r := range reasons {
		if r.Hook == hook && r.Interface == link && r.Reason == reason {
			return r, nil
		}
	}
	return api.Reason{Hook: hook, Interface: link, Reason: reason}, nil
}
