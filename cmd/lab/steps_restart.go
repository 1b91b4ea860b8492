package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// outageRequests is how many requests must be answered while there is no daemon.
const outageRequests = 200

// protocolBGP is the number of routes that the speakers put into the kernel.
const protocolBGP = 186

// outage is what is looked at while the daemon is away.
type outage struct {
	killed, started, ready, complete time.Time

	answered    int    // requests while there was no daemon
	stale       int    // prefixes that the ToR kept for the daemon that restarts
	least       int    // entries in the ToR's table, at the worst moment
	withdrawals int    // routes that left the ToR's kernel
	flood       uint64 // packets sent by the attacker
	base        uint64 // dropped in XDP before
	dropped     uint64
	underlay    Seen
}

// restart: kill -9 and a new start, while the client asks and the attacker floods.
func (d *demo) restart(ctx context.Context) (string, error) {
	if d.stream == nil {
		return "", errNoClient
	}
	if _, err := d.WaitRoutes(ctx); err != nil {
		return "", fmt.Errorf("before the restart: %w", err)
	}
	var o outage
	r, err := d.reason(ctx, "xdp", "eth0", "rule-drop")
	if err != nil {
		return "", err
	}
	o.base = r.Packets
	secret := "outage-" + randomHex(16)
	capture, err := d.ToR.StartCapture("gateway", secret)
	if err != nil {
		return "", err
	}
	err = d.watched(ctx, &o, secret)
	var captureErr error
	o.underlay, captureErr = capture.Stop()
	if err := errors.Join(err, captureErr); err != nil {
		return "", err
	}
	return d.judge(ctx, o)
}

// watched kills and restarts with everything else going on.
func (d *demo) watched(ctx context.Context, o *outage, secret string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates, done := make(chan netlink.RouteUpdate, 1024), make(chan struct{})
	if err := netlink.RouteSubscribeAt(d.ToR.fd, updates, done); err != nil {
		return fmt.Errorf("watch the ToR's routes: %w", err)
	}
	withdrawals := make(chan int)
	go func() { withdrawals <- countWithdrawals(updates) }()
	aside, asideCtx := errgroup.WithContext(ctx)
	aside.Go(func() error {
		sent, err := Flood{Rate: restartRate}.Run(asideCtx, d.Site)
		o.flood = sent.Packets
		return err
	})
	aside.Go(func() error { return d.leastEntries(asideCtx, &o.least) })
	aside.Go(func() error { // a workload that keeps asking for the peer: nothing of it may leave in the clear
		for asideCtx.Err() == nil {
			_ = get(asideCtx, time.Second, d.Workload(1), netip.AddrPortFrom(Inner4, 80), "/"+secret, "")
		}
		return nil
	})
	err := d.killAndStart(asideCtx, o)
	cancel()
	err = errors.Join(err, aside.Wait())
	close(done)
	o.withdrawals = <-withdrawals
	return err
}

func (d *demo) killAndStart(ctx context.Context, o *outage) (err error) {
	o.killed = time.Now()
	if err := d.Gateway.KillDaemon(); err != nil {
		return err
	}
	base := d.stream.Answered()
	err = poll(ctx, func() error {
		t, err := d.Router.Table(ctx)
		if err != nil {
			return err
		}
		o.stale = max(o.stale, t.Stale())
		switch { // of its two sessions one ends before the other
		case t.Established() > 0:
			return errors.New("the ToR has not noticed the end of the daemon")
		case o.stale != len(advertised):
			return fmt.Errorf("the ToR kept %d of %d prefixes as stale", o.stale, len(advertised))
		}
		return nil
	})
	if err == nil {
		err = d.answered(ctx, outageRequests)
	}
	if err != nil {
		return fmt.Errorf("without a daemon: %w", err)
	}
	o.answered = d.stream.Answered() - base
	o.started = time.Now()
	if err := d.Gateway.StartDaemon(); err != nil {
		return err
	}
	if _, err := d.Gateway.WaitReady(ctx); err != nil {
		return err
	}
	o.ready = time.Now()
	if _, err := d.WaitRoutes(ctx); err != nil {
		return fmt.Errorf("after the restart: %w", err)
	}
	o.complete = time.Now()
	return d.answered(ctx, outageRequests) // and on it goes
}

// judge compares what was seen with what is promised.
func (d *demo) judge(ctx context.Context, o outage) (string, error) {
	var err error
	if o.dropped, err = d.dropped(ctx, o.base, o.flood); err != nil {
		return "", err
	}
	end := time.Now()
	if err := d.settled(ctx, end); err != nil {
		return "", err
	}
	requests := d.stream.Between(o.killed, end)
	d.noted = fmt.Sprintf("%d requests answered while there was no daemon, for %s\n"+
		"ToR: %d prefixes kept as stale, never fewer than %d in its table, %d withdrawn; all fresh %s after the start\n"+
		"attacker: %d of %d packets dropped in XDP all the while; marker of web-1 in the clear: %d",
		o.answered, round(o.started.Sub(o.killed)), o.stale, o.least, o.withdrawals, round(o.complete.Sub(o.started)),
		o.dropped, o.flood, o.underlay.Markers[0])
	figures := fmt.Sprintf("kill -9, back after %s; client: %s", round(o.ready.Sub(o.killed)), requests)
	errs := []error{lossless(requests), mostly(o.dropped, o.flood)}
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(o.least >= len(advertised), "the ToR's table shrank to %d of %d", o.least, len(advertised))
	check(o.withdrawals == 0, "%d routes left the ToR's kernel", o.withdrawals)
	check(o.underlay.Markers[0] == 0, "plaintext on the underlay: %d frames", o.underlay.Markers[0])
	check(o.underlay.Missed == 0, "the capture missed %d frames and proves nothing", o.underlay.Missed)
	return figures, errors.Join(errs...)
}

// leastEntries looks at the ToR's table until ctx ends and keeps the smallest size.
func (d *demo) leastEntries(ctx context.Context, least *int) error {
	*least = len(advertised)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		t, err := d.Router.Table(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		*least = min(*least, len(advertised)-len(missing(t)))
		<-tick.C
	}
	return nil
}

// countWithdrawals counts the BGP routes that leave the kernel, until the channel is closed.
func countWithdrawals(updates <-chan netlink.RouteUpdate) int {
	n := 0
	for u := range updates {
		if u.Type == unix.RTM_DELROUTE && u.Protocol == protocolBGP {
			n++
		}
	}
	return n
}
