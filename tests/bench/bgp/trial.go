package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"

	"sluice/tests/bench/lane"
	"sluice/tests/bench/node"
)

// box is the namespace of one trial, with a link to each source.
type box struct {
	ns    *lane.Namespace
	links int
}

// newBox makes one. The neighbors' ends of its links come and go with it.
func (b *bench) newBox(peers int) (*box, error) {
	ns, err := lane.NewNamespace()
	if err != nil {
		return nil, err
	}
	x := &box{ns, peers}
	for i := range peers {
		if err := x.join(i, b.sources[i].ns); err != nil {
			return nil, errors.Join(fmt.Errorf("link to source %d: %w", i, err), x.Close())
		}
	}
	return x, nil
}

func (x *box) join(i int, far *lane.Namespace) error {
	for _, end := range []struct {
		at      *lane.Namespace
		address netip.Addr
	}{{x.ns, rivalAddress(i)}, {far, sourceAddress(i)}} {
		err := end.at.Do(func() error {
			if end.at == x.ns {
				if err := lane.AddVeth(link(i), link(i), far); err != nil {
					return err
				}
			}
			index, _, err := lane.Up(link(i))
			if err != nil {
				return err
			}
			return lane.AddAddress(index, netip.PrefixFrom(end.address, 24))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close takes the links away first: then their routes are gone when it returns. Those of a namespace that is given back are
// taken down later, in the next trial's time.
func (x *box) Close() error {
	err := x.ns.Do(func() error {
		var errs []error
		for i := range x.links {
			if l, err := netlink.LinkByName(link(i)); err == nil {
				errs = append(errs, netlink.LinkDel(l))
			}
		}
		return errors.Join(errs...)
	})
	return errors.Join(err, x.ns.Close())
}

// received are the octets that came by its links.
func (x *box) received() (octets uint64, err error) {
	err = x.ns.Do(func() error {
		for i := range x.links {
			l, err := netlink.LinkByName(link(i))
			if err != nil {
				return err
			}
			octets += l.Attrs().Statistics.RxBytes
		}
		return nil
	})
	return octets, err
}

// installed counts how many prefixes of the list, in its order, are in the kernel with all next hops. It ends with the first that is not.
func (x *box) installed(list []netip.Prefix) (n int, err error) {
	err = x.ns.Do(func() error {
		for _, p := range list {
			routes, err := netlink.RouteGetWithOptions(p.Addr().Next().AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
			if err != nil || len(routes) != 1 || routes[0].Dst == nil || routes[0].Dst.String() != p.String() || max(1, len(routes[0].MultiPath)) != x.links {
				return nil // there is none yet, or the one of the first neighbor
			}
			n++
		}
		return nil
	})
	return n, err
}

var prefixesOf = regexp.MustCompile(`Prefixes:\s+(\d+)`)

// prefixes counts the routes of the main table, of which the links' own are some. It walks all of them.
func (x *box) prefixes() (n int, err error) {
	err = x.ns.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/fib_triestat")
		if err != nil {
			return err
		}
		if m := prefixesOf.FindSubmatch(text); m != nil { // no table was made yet: none
			n, err = strconv.Atoi(string(m[1]))
		}
		return err
	})
	return n, err
}

// trial has one rival learn the table of so many peers.
func (b *bench) trial(ctx context.Context, r Rival, peers int) (t Trial, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.o.Limit)
	defer cancel()
	x, err := b.newBox(peers)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	began := make(chan beginning, 1)
	var pid atomic.Int64 // 0 while the rival starts
	go func() { began <- x.begins(ctx, &pid) }()
	s, err := r.start(ctx, b, x.ns, peers)
	if err != nil {
		return t, errors.Join(err, ctx.Err())
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	pid.Store(int64(s.PID()))
	begin := <-began
	if begin.err != nil {
		return t, begin.err
	}
	w := &watcher{speaker: s, box: x, begin: begin.at, before: begin.cpu, paths: peers * b.o.Routes, probes: b.table.probes(probeCount)}
	if err := w.watch(ctx, b.o.Rest, b.o.Memory); err != nil {
		return t, err
	}
	t = Trial{Rival: r.Key, Peers: peers, RIB: w.rib, FIB: w.fib, Rest: w.rest, CPU: w.cpu}
	if t.Resident, t.Peak, err = residentOf(s.PID()); err != nil {
		return t, err
	}
	return t, b.check(ctx, x, w.probes)
}

// check is that every route is there, and each that is looked at with all next hops.
func (b *bench) check(ctx context.Context, x *box, probes []netip.Prefix) error {
	all, err := x.prefixes()
	if err != nil {
		return err
	}
	// The local table is shown with the main one: three prefixes of each link's own network, and perhaps loopback's.
	if own := all - b.o.Routes; own < 0 || own > 4*x.links+4 {
		return fmt.Errorf("the kernel has %d prefixes, want %d and those of the links", all, b.o.Routes)
	}
	n, err := x.installed(probes)
	if err == nil && n != len(probes) {
		err = fmt.Errorf("%s is not in the kernel with %d next hops any more", probes[n], x.links)
	}
	return errors.Join(err, ctx.Err())
}

// beginning is when a table began to come.
type beginning struct {
	at  time.Time
	cpu time.Duration // what the rival had used when it was last seen without the table
	err error
}

// handshake is more than sessions without routes carry.
const handshake = 16 << 10

// begins waits for it. The rival's clock is read before each look: afterwards, on a busy machine, all may be done.
func (x *box) begins(ctx context.Context, pid *atomic.Int64) (b beginning) {
	b.err = node.Poll(ctx, 2*time.Millisecond, func() error {
		var used time.Duration
		if pid := int(pid.Load()); pid != 0 {
			var err error
			if used, err = node.CPU(pid); err != nil {
				return err
			}
		}
		octets, err := x.received()
		if err == nil && octets < handshake {
			b.cpu = used
			err = errors.New("the neighbors send nothing")
		}
		return err
	})
	b.at = time.Now()
	return b
}
