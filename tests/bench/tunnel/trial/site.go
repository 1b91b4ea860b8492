// Package trial is what the benchmark of tunnels measures with, on the host and in a virtual machine alike: lanes of two
// gateways with a wire between them, and loads that take turns in all of them.
package trial

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"sluice/tests/bench/lane"
)

// Wire is what the links of a lane are.
type Wire struct {
	MTU     int  // of the wire between the gateways, bytes
	Offload bool // TSO, GSO and GRO as the kernel has them; else all off, so that no packet is longer than MTU
}

// String is for tables.
func (w Wire) String() string {
	if w.Offload {
		return fmt.Sprintf("MTU %d, segmentation offload", w.MTU)
	}
	return fmt.Sprintf("MTU %d", w.MTU)
}

// Plan is the form of a site.
type Plan struct {
	Wire     Wire
	Overhead int // of the tunnel on the wire, bytes: what the packets of workloads are shorter by
	Paths    int // beside each other, each with links and addresses of its own
	// CPUs that receive from the wires, as the queues of a NIC would do it: path after path the next one, and a single path
	// by its flows. 0: the CPU that sent.
	CPUs int
}

// Site is one lane: client - gateway - wire - gateway - server, each in a namespace of its own, joined by veth pairs, once
// for every path. Every neighbour is permanent, so that no lane resolves any.
type Site struct {
	Plan
	A, B *End // of the clients, of the servers
}

// End is a gateway and the workload behind it.
type End struct {
	Box, Workload *lane.Namespace
	side          byte // 1 or 2
	other         *End
	paths         []ends
}

// ends are the links of a path at one end.
type ends struct {
	uplink, work int // indexes
	mac          struct{ uplink, work, inside net.HardwareAddr }
}

// gateway is what workloads have as theirs; no link has the address, their neighbour entry says who it is.
var gateway = netip.MustParseAddr("169.254.1.1")

// Names of a path's links: in the gateway toward the other one and toward the workload, and in the workload. A tunnel's
// link is called Tunnel.
func Uplink(path int) string { return fmt.Sprintf("uplink%d", path) }
func work(path int) string   { return fmt.Sprintf("work%d", path) }
func inside(path int) string { return fmt.Sprintf("eth%d", path) }

// Tunnel is the name of a path's tunnel, at both ends.
func Tunnel(path int) string { return fmt.Sprintf("tun%d", path) }

// Outer is the address of a gateway on the wire of a path.
func (e *End) Outer(path int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(path), e.side})
}

// Inner is the address of the workload on a path, in Network.
func (e *End) Inner(path int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, e.side, byte(path), 2})
}

// Network is what is behind a gateway on a path.
func (e *End) Network(path int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, e.side, byte(path), 0}), 24)
}

// Other is the end at the other side.
func (e *End) Other() *End { return e.other }

// NewSite makes one whose gateways reach each other, and do not know yet how to reach the other one's workload.
func NewSite(p Plan) (*Site, error) {
	s := &Site{p, &End{side: 1}, &End{side: 2}}
	s.A.other, s.B.other = s.B, s.A
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

// Ends are both.
func (s *Site) Ends() []*End { return []*End{s.A, s.B} }

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

func (s *Site) build() error {
	for i := range s.Paths {
		if err := s.wire(i); err != nil {
			return err
		}
		for _, e := range s.Ends() {
			if err := e.Box.Do(func() error { return s.box(e, i) }); err != nil {
				return err
			}
			if err := e.Workload.Do(func() error { return s.workload(e, i) }); err != nil {
				return err
			}
		}
		for _, e := range s.Ends() {
			err := e.Box.Do(func() error {
				p := e.paths[i]
				return errors.Join(
					lane.AddNeighbour(p.uplink, e.other.Outer(i), e.other.paths[i].mac.uplink),
					lane.AddNeighbour(p.work, e.Inner(i), p.mac.inside))
			})
			if err != nil {
				return err
			}
		}
	}
	for _, e := range s.Ends() {
		if err := e.Workload.Do(buffers); err != nil {
			return err
		}
	}
	return nil
}

// wire makes that of a path. A link's queue gets the CPUs that are the namespace's default when it is made.
func (s *Site) wire(path int) error {
	if s.CPUs > 0 {
		for i, e := range s.Ends() {
			mask := 1 << ((path + i) % s.CPUs)
			if s.Paths == 1 {
				mask = 1<<s.CPUs - 1
			}
			if err := e.Box.Do(func() error { return receiveOn(mask) }); err != nil {
				return err
			}
		}
	}
	return s.A.Box.Do(func() error { return lane.AddVeth(Uplink(path), Uplink(path), s.B.Box) })
}

// receiveOn sets the CPUs of new links (net.core.rps_default_mask, Linux 6.3).
func receiveOn(mask int) error {
	return os.WriteFile("/proc/sys/net/core/rps_default_mask", fmt.Appendf(nil, "%x", mask), 0)
}

// box makes the links of a path in a gateway's namespace.
func (s *Site) box(e *End, path int) (err error) {
	if s.CPUs > 0 {
		if err := receiveOn(0); err != nil {
			return err
		}
	}
	if err := lane.AddVeth(work(path), inside(path), e.Workload); err != nil {
		return err
	}
	var p ends
	if p.uplink, p.mac.uplink, err = s.up(Uplink(path), s.Wire.MTU); err != nil {
		return err
	}
	if p.work, p.mac.work, err = s.up(work(path), s.Wire.MTU); err != nil {
		return err
	}
	e.paths = append(e.paths, p)
	return errors.Join(lane.AddAddress(p.uplink, netip.PrefixFrom(e.Outer(path), 30)),
		lane.AddRoute(p.work, netip.PrefixFrom(e.Inner(path), 32), netip.Addr{}, netip.Addr{}))
}

// workload makes the workload's end of a path, in its namespace.
func (s *Site) workload(e *End, path int) error {
	index, mac, err := s.up(inside(path), s.Wire.MTU-s.Overhead)
	if err != nil {
		return err
	}
	e.paths[path].mac.inside = mac
	return errors.Join(lane.AddAddress(index, netip.PrefixFrom(e.Inner(path), 32)),
		lane.AddNeighbour(index, gateway, e.paths[path].mac.work),
		lane.AddRoute(index, e.other.Network(path), gateway, e.Inner(path)))
}

func (s *Site) up(name string, mtu int) (index int, mac net.HardwareAddr, err error) {
	if index, mac, err = lane.Up(name); err != nil {
		return 0, nil, err
	}
	if err := setMTU(index, mtu); err != nil {
		return 0, nil, err
	}
	if !s.Wire.Offload {
		err = lane.SegmentsOff(name)
	}
	return index, mac, err
}

func setMTU(index, mtu int) error {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(l, mtu); err != nil {
		return fmt.Errorf("MTU %d of %s: %w", mtu, l.Attrs().Name, err)
	}
	return nil
}

// buffers bounds those of TCP: with more, queues overflow on one CPU, and what is measured is TCP's recovery.
func buffers() error {
	for _, name := range []string{"tcp_rmem", "tcp_wmem"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte("4096 131072 524288"), 0); err != nil {
			return err
		}
	}
	return nil
}

// Plain lets the gateways forward by their wires.
func (s *Site) Plain() error {
	var errs []error
	for _, e := range s.Ends() {
		errs = append(errs, e.Box.Do(func() error {
			var errs []error
			for i, p := range e.paths {
				errs = append(errs, lane.AddRoute(p.uplink, e.other.Network(i), e.other.Outer(i), netip.Addr{}))
			}
			return errors.Join(errs...)
		}))
	}
	return errors.Join(errs...)
}

// Through lets a gateway forward a path by its tunnel. The link is there; it is set up, with the MTU that the wire leaves.
func (s *Site) Through(e *End, path int) error {
	return e.Box.Do(func() error {
		index, _, err := lane.Up(Tunnel(path))
		if err != nil {
			return err
		}
		if err := setMTU(index, s.Wire.MTU-s.Overhead); err != nil {
			return err
		}
		return lane.AddRoute(index, e.other.Network(path), netip.Addr{}, netip.Addr{})
	})
}
