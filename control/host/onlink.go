package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// OnLink says which of some addresses the kernel reaches without a router, in the calling thread's network namespace: by an
// interface's network, or by a route that somebody has made.
func OnLink(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]bool, error) {
	out := map[netip.Addr]bool{}
	for _, a := range addrs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		routes, err := netlink.RouteGet(a.AsSlice())
		var refused unix.Errno
		if errors.As(err, &refused) {
			continue // no route, or one that says no
		}
		if err != nil {
			return nil, fmt.Errorf("route to %s: %w", a, err)
		}
		for _, r := range routes {
			if r.Type == unix.RTN_UNICAST && r.Gw == nil && r.Via == nil && len(r.MultiPath) == 0 {
				out[a] = true
			}
		}
	}
	return out, nil
}
