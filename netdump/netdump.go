// Package netdump reads tables of the kernel over netlink while they change. It stands on the ground, for every subsystem
// that looks at the kernel.
package netdump

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tries is how often a dump is made before an inconsistent one has to do: some machines never rest.
const tries = 10

// List repeats a dump that a concurrent change made inconsistent (NLM_F_DUMP_INTR). list must return what it has read beside
// netlink.ErrDumpInterrupted; RouteList and RouteListFiltered return nothing then: see Routes.
func List[T any](list func() ([]T, error)) (out []T, err error) {
	for range tries {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, nil
}

// Routes lists the routes that filter and mask (RT_FILTER_…) leave, as netlink.Handle.RouteListFiltered does at rest. nl is a
// *netlink.Handle.
func Routes(nl Router, family int, filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	return RoutesAs(nl, family, filter, mask, func(r netlink.Route) (netlink.Route, bool) { return r, true })
}

// RoutesAs is Routes with each made what is kept of it, if anything, as it comes: a netlink.Route is some 400 bytes, and to gather
// thousands costs more than to read them.
func RoutesAs[T any](nl Router, family int, filter *netlink.Route, mask uint64, as func(netlink.Route) (T, bool)) ([]T, error) {
	return List(func() (out []T, err error) {
		err = nl.RouteListFilteredIter(family, filter, mask, func(r netlink.Route) bool {
			if one, ok := as(r); ok {
				out = append(out, one)
			}
			return true
		})
		return out, err
	})
}

// Strict opens a handle for Routes of which the kernel itself sends only what the filter leaves, by protocol, table, type and
// interface (Linux 4.20): on any other it hands over every route that there is. Other requests of the library may not be valid on it.
func Strict() (*netlink.Handle, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE) // other families may be missing
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := nl.SetStrictCheck(true); err != nil {
		nl.Close()
		return nil, fmt.Errorf("switch netlink to strict dumps (Linux 4.20): %w", err)
	}
	return nl, nil
}

// Router is what Routes needs of a netlink.Handle.
type Router interface {
	RouteListFilteredIter(family int, filter *netlink.Route, mask uint64, f func(netlink.Route) (more bool)) error
}
