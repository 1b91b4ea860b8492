package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"sluice/tests/bench/gateway"
	"sluice/tests/bench/lane"
)

// Names of the links of a gateway.
const (
	uplink = "uplink" // toward the other gateway
	work   = "work"   // host side of the workload's veth
	inside = "eth0"   // the workload's side of it
)

var (
	// gatewayAddress is what a workload has as its gateway: every box of Sluice answers to it.
	gatewayAddress = netip.MustParseAddr("169.254.1.1")
	// served is where servers listen. Policies accept it, and no other port.
	served = netip.MustParsePrefix("10.0.0.0/8")
	// denied is the last prefix of every list, and deniedServer an address of the server in it.
	denied       = netip.MustParsePrefix("203.0.113.64/28")
	deniedServer = netip.MustParseAddr("203.0.113.66")
)

// end is a gateway and the workload behind it.
type end struct {
	Box, Workload *lane.Namespace
	uplink        netip.Prefix // the gateway's address on the wire
	next          netip.Addr   // the other gateway's
	addresses     []netip.Addr // the workload's
	there         []netip.Prefix
	uplinkIndex   int
	workIndex     int
	mac           struct{ uplink, work, inside net.HardwareAddr }
	gateway       *gateway.Gateway // where Sluice runs here
}

// Site is one lane: client - gateway - wire - gateway - server, each in a namespace of its own, joined by veth pairs. Every
// neighbour is permanent, so that no lane resolves any.
type Site struct {
	A, B end // of the client, of the server
}

// NewSite makes the links. Addresses and routes of the boxes come by plain, or by whatever runs there.
func NewSite() (*Site, error) {
	s := &Site{
		A: end{uplink: netip.MustParsePrefix("198.18.0.1/30"), addresses: []netip.Addr{netip.MustParseAddr("10.1.0.2")}},
		B: end{uplink: netip.MustParsePrefix("198.18.0.2/30"), addresses: []netip.Addr{netip.MustParseAddr("10.2.0.2"), deniedServer}},
	}
	s.A.next, s.B.next = s.B.uplink.Addr(), s.A.uplink.Addr()
	s.A.there, s.B.there = hosts(s.B.addresses), hosts(s.A.addresses)
	for _, n := range []**lane.Namespace{&s.A.Box, &s.A.Workload, &s.B.Box, &s.B.Workload} {
		var err error
		if *n, err = lane.NewNamespace(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("make a lane: %w", err), s.Close())
	}
	return s, nil
}

// Close takes the lane away.
func (s *Site) Close() error {
	var errs []error
	for _, n := range []*lane.Namespace{s.A.Workload, s.A.Box, s.B.Box, s.B.Workload} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// Server is where the server's workload listens.
func (s *Site) Server(port uint16) netip.AddrPort { return netip.AddrPortFrom(s.B.addresses[0], port) }

func (s *Site) build() error {
	if err := s.A.Box.Do(func() error { return lane.AddVeth(uplink, uplink, s.B.Box) }); err != nil {
		return err
	}
	for _, e := range []*end{&s.A, &s.B} {
		if err := e.Box.Do(func() error { return e.links() }); err != nil {
			return err
		}
		if err := e.Workload.Do(func() error { return e.workload() }); err != nil {
			return err
		}
	}
	for _, e := range []struct {
		*end
		other net.HardwareAddr
	}{{&s.A, s.B.mac.uplink}, {&s.B, s.A.mac.uplink}} {
		err := e.Box.Do(func() error {
			errs := []error{lane.AddNeighbour(e.uplinkIndex, e.next, e.other)}
			for _, a := range e.addresses {
				errs = append(errs, lane.AddNeighbour(e.workIndex, a, e.mac.inside))
			}
			return errors.Join(errs...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// links makes those of a box, in its namespace.
func (e *end) links() (err error) {
	if err := lane.AddVeth(work, inside, e.Workload); err != nil {
		return err
	}
	if e.uplinkIndex, e.mac.uplink, err = up(uplink); err != nil {
		return err
	}
	e.workIndex, e.mac.work, err = up(work)
	return err
}

func up(name string) (index int, mac net.HardwareAddr, err error) {
	if index, mac, err = lane.Up(name); err != nil {
		return 0, nil, err
	}
	return index, mac, lane.SegmentsOff(name)
}

// workload gives it its addresses and its gateway, in its namespace.
func (e *end) workload() error {
	index, mac, err := up(inside)
	if err != nil {
		return err
	}
	e.mac.inside = mac
	for _, a := range e.addresses {
		if err := lane.AddAddress(index, netip.PrefixFrom(a, 32)); err != nil {
			return err
		}
	}
	if err := lane.AddNeighbour(index, gatewayAddress, e.mac.work); err != nil {
		return err
	}
	return lane.AddRoute(index, netip.MustParsePrefix("0.0.0.0/0"), gatewayAddress, netip.Addr{})
}

// plain gives a box the addresses and routes with which the kernel alone forwards; the file of Sluice says the same.
func (e *end) plain() error {
	return e.Box.Do(func() error {
		errs := []error{lane.AddAddress(e.uplinkIndex, e.uplink), lane.AddAddress(e.workIndex, netip.PrefixFrom(gatewayAddress, 32))}
		for _, a := range e.addresses {
			errs = append(errs, lane.AddRoute(e.workIndex, netip.PrefixFrom(a, 32), netip.Addr{}, netip.Addr{}))
		}
		for _, p := range e.there {
			errs = append(errs, lane.AddRoute(e.uplinkIndex, p, e.next, netip.Addr{}))
		}
		return errors.Join(errs...)
	})
}

func hosts(list []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range list {
		out = append(out, netip.PrefixFrom(a, 32))
	}
	return out
}
