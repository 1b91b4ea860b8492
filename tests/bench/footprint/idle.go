package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/tests/bench/lane"
	"sluice/tests/bench/node"
)

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// idle looks at daemons to which nothing happens, side by side: without flows, with flows, and with a long list.
func (b *bench) idle(ctx context.Context) (err error) {
	cases := []Idle{{Prefixes: 10}, {Prefixes: 10, Flows: b.o.Flows}, {Prefixes: b.o.Prefixes[len(b.o.Prefixes)-1]}}
	daemons := make([]*daemon, len(cases))
	for i := range cases {
		site, err := lane.NewSite(b.w.lane)
		if err != nil {
			return err
		}
		defer site.Close()
		c := newContent(Prefixes, cases[i].Prefixes)
		d, err := startDaemon(ctx, b.w.binary, site.Box, map[string][]byte{
			// All flows are one LAN's, and no owner has more than half of the table.
			"sluice.yaml": fmt.Appendf(sluiceList(), "conntrack: {max_entries: %d}\n", 4*max(b.o.Flows, 32*thousand)), "listed.netset": netset(c.list),
		})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Close()) }()
		daemons[i] = d
		if cases[i].Flows > 0 {
			if err := openFlows(ctx, site, d, cases[i].Flows); err != nil {
				return err
			}
		}
		if cases[i].Resident, err = d.settled(ctx); err != nil {
			return err
		}
	}
	if err := wait(ctx, b.o.Unrest); err != nil {
		return err
	}
	if err := forEach(cases, daemons, -1); err != nil {
		return err
	}
	start := time.Now()
	if err := wait(ctx, b.o.Idle); err != nil {
		return err
	}
	if err := forEach(cases, daemons, 1); err != nil {
		return err
	}
	wall := time.Since(start)
	for i := range cases {
		cases[i].Wall, cases[i].Wakeups = wall, cases[i].Wakeups/wall.Seconds()
		b.log.Info("idle", "prefixes", cases[i].Prefixes, "flows", cases[i].Flows, "percent", cases[i].Percent(), "wakeups", cases[i].Wakeups)
		if want := cases[i].Flows; want > 0 {
			have, err := daemons[i].flows(ctx)
			if err != nil || have < want*99/100 {
				return errors.Join(err, fmt.Errorf("of %d flows %d were left while the daemon was idle", want, have))
			}
		}
	}
	b.results.Idle = append(b.results.Idle, cases...)
	return nil
}

// forEach adds the counters of daemons, or takes them off.
func forEach(cases []Idle, daemons []*daemon, sign int) error {
	for i, d := range daemons {
		cpu, err := d.CPU()
		if err != nil {
			return err
		}
		n, err := wakeups(d.PID)
		if err != nil {
			return err
		}
		cases[i].CPU += time.Duration(sign) * cpu
		cases[i].Wakeups += float64(sign * n)
	}
	return nil
}

// wakeups are the voluntary context switches of the threads that a process has.
func wakeups(pid int) (n int, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		return 0, errors.Join(err, fmt.Errorf("process %d has no threads", pid))
	}
	for _, name := range threads {
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(data), "\nvoluntary_ctxt_switches:")
		var own int
		if _, err := fmt.Sscan(rest, &own); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		n += own
	}
	return n, nil
}

// openFlows makes flows that a daemon keeps for three minutes: UDP that the LAN sent and the outside answered. What is not
// answered yet competes for few places, so answers follow in portions.
func openFlows(ctx context.Context, site *lane.Site, d *daemon, n int) error {
	out, err := newWire(site.Sink, site.Box, lane.Downlink)
	if err != nil {
		return err
	}
	back, err := newWire(site.Generator, site.Box, lane.Uplink)
	if err != nil {
		return err
	}
	var sockets [2]int
	for i, w := range []*wire{out, back} {
		if sockets[i], err = w.socket(); err != nil {
			return err
		}
		defer unix.Close(sockets[i])
	}
	const portion = 1000
	inside, outside := netip.MustParseAddr("10.0.0.9"), nobody.Addr()
	for first := 0; first < n; first += portion {
		for i, w := range []*wire{out, back} {
			for k := first; k < min(n, first+portion); k++ {
				client, server := netip.AddrPortFrom(inside, uint16(10_000+k%50_000)), netip.AddrPortFrom(outside, uint16(1+k/50_000))
				if i == 1 {
					client, server = server, client
				}
				frame := w.frame(client, server)
				err := write(sockets[i], frame)
				for errors.Is(err, unix.ENOBUFS) && ctx.Err() == nil { // the wire is full
					time.Sleep(time.Millisecond)
					err = write(sockets[i], frame)
				}
				if err != nil {
					return fmt.Errorf("open flows: %w", err)
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return node.Poll(ctx, 200*time.Millisecond, func() error {
		have, err := d.flows(ctx)
		if err == nil && have < n*99/100 {
			err = fmt.Errorf("of %d flows %d are there", n, have)
		}
		return err
	})
}
