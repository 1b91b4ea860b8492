package wireguard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/path"
)

const (
	// settleTime is how long a burst of changes is gathered.
	settleTime = 50 * time.Millisecond
	// restFactor times what a look took is the pause after it, for at most longestRest: a router's routes may change all
	// the time.
	restFactor  = 30
	longestRest = time.Second
	// drained is how many changes at most are read as one.
	drained = 1000
)

// Run follows the underlay until ctx ends: peers without a session get a handshake as soon as there is another way to
// their endpoint. By itself a device tries again 5 s after a try that found no route.
func (d *Driver) Run(ctx context.Context) error {
	var s *nl.NetlinkSocket
	err := d.inside(func() (err error) {
		s, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
		return err
	})
	if err != nil {
		return fmt.Errorf("follow the underlay: %w", err)
	}
	defer s.Close()
	defer context.AfterFunc(ctx, s.Close)()
	known := map[reach]string{}
	for {
		began := time.Now()
		if known, err = d.greetMoved(known); err != nil && ctx.Err() == nil {
			d.log.Warn("look at the ways to peers", "error", err)
		}
		rest(ctx, min(longestRest, restFactor*time.Since(began)))
		if err := await(s); err != nil && ctx.Err() == nil {
			return fmt.Errorf("follow the underlay: %w", err)
		}
		rest(ctx, settleTime)
		drain(s)
		if ctx.Err() != nil {
			return nil
		}
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// await waits for a change that is not our own doing: each change of a peer would have the routes to a thousand looked up.
// Changes that did not find room are changes.
func await(s *nl.NetlinkSocket) error {
	for {
		list, _, err := s.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
			return nil
		case err != nil || slices.ContainsFunc(list, foreign):
			return err
		}
	}
}

func foreign(m syscall.NetlinkMessage) bool {
	return !path.OwnNotice(m.Header.Type, m.Data)
}

// drain reads what has come already.
func drain(s *nl.NetlinkSocket) {
	_ = s.SetReceiveTimeout(&unix.Timeval{Usec: 1})
	defer func() { _ = s.SetReceiveTimeout(&unix.Timeval{}) }()
	for range drained {
		if err := await(s); err != nil {
			return
		}
	}
}

// reach is how a peer is reached: what the look at its way is remembered by.
type reach struct {
	tunnel string
	peer   wgtypes.Key
	at     netip.AddrPort
}

// greetMoved looks at the way to every endpoint in use and greets the peers whose way is another than known, or was not
// known. It returns what is known now.
func (d *Driver) greetMoved(known map[reach]string) (map[reach]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	links, err := d.links.Own()
	if err != nil {
		return known, err
	}
	d.releaseLeft(links) // a degraded start observes nothing
	now := map[reach]string{}
	var failed []error
	for _, link := range links {
		dev, err := d.device(link)
		if dev == nil {
			failed = append(failed, err)
			continue
		}
		failed = append(failed, dev.look()) // the ways may be the same
		have, err := dev.state()
		if err != nil {
			failed = append(failed, err)
			continue
		}
		var moved []wgtypes.Key
		for _, p := range have.Peers {
			r := reach{link.Attrs().Name, p.PublicKey, endpointOf(p)}
			if !r.at.IsValid() {
				continue
			}
			now[r] = d.way(r.at.Addr(), uint32(have.FirewallMark))
			if before, ok := known[r]; !ok || before != now[r] {
				moved = append(moved, p.PublicKey)
			}
		}
		if len(moved) > 0 {
			failed = append(failed, dev.greet(moved...))
		}
	}
	return now, errors.Join(failed...)
}

// way is how encrypted packets leave for an address, as text to compare.
func (d *Driver) way(to netip.Addr, mark uint32) string {
	routes, err := d.nl.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{Mark: mark})
	if err != nil || len(routes) == 0 {
		return ""
	}
	// The flags tell of a link without carrier.
	return fmt.Sprint(routes[0].LinkIndex, routes[0].Src, routes[0].Gw, routes[0].Flags)
}
