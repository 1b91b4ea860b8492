package lane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Names of the links of a site, and its addresses.
const (
	Uplink   = "uplink" // of the box, toward the generator
	Downlink = "lan"    // of the box, toward the sink
	tor      = "tor"    // the generator's end of Uplink
	far      = "far"    // the sink's end of Downlink
)

var (
	// UplinkAddress and DownlinkAddress are the box's own; the far ends have the next address.
	UplinkAddress   = netip.MustParsePrefix("198.18.0.1/30")
	DownlinkAddress = netip.MustParsePrefix("198.18.1.1/30")
	// Inside is what the box forwards to the sink. All else it would send back to the generator.
	Inside = netip.MustParsePrefix("10.0.0.0/8")
)

// Site is one lane: a generator, the box under test, and a sink behind it, each in a namespace of its own. What the
// generator sends to Inside arrives in the sink, unless the box drops it.
type Site struct {
	Generator, Box, Sink *Namespace
	UplinkIndex          int
	mac                  struct{ tor, uplink net.HardwareAddr }
	sink                 link.Link
}

// NewSite makes one that forwards and filters nothing.
func NewSite(o *Objects) (*Site, error) {
	s := &Site{}
	for _, n := range []**Namespace{&s.Generator, &s.Box, &s.Sink} {
		var err error
		if *n, err = NewNamespace(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.build(o); err != nil {
		return nil, errors.Join(fmt.Errorf("make a lane: %w", err), s.Close())
	}
	return s, nil
}

func (s *Site) build(o *Objects) error {
	err := s.Box.Do(func() error {
		if err := AddVeth(Uplink, tor, s.Generator); err != nil {
			return err
		}
		return AddVeth(Downlink, far, s.Sink)
	})
	if err != nil {
		return err
	}
	var farMAC net.HardwareAddr
	if err := s.Generator.Do(func() (err error) { _, s.mac.tor, err = Up(tor); return err }); err != nil {
		return err
	}
	if err := s.Sink.Do(func() error {
		index, mac, err := Up(far)
		if err != nil {
			return err
		}
		farMAC = mac
		s.sink, err = o.attachSink(index)
		return err
	}); err != nil {
		return err
	}
	return s.Box.Do(func() error { return s.buildBox(farMAC) })
}

func (s *Site) buildBox(farMAC net.HardwareAddr) error {
	for _, l := range []struct {
		name    string
		address netip.Prefix
		next    net.HardwareAddr
		route   netip.Prefix
	}{
		{Uplink, UplinkAddress, s.mac.tor, netip.MustParsePrefix("0.0.0.0/0")},
		{Downlink, DownlinkAddress, farMAC, Inside},
	} {
		index, mac, err := Up(l.name)
		if err != nil {
			return err
		}
		if l.name == Uplink {
			s.UplinkIndex, s.mac.uplink = index, mac
		}
		if err := address(index, l.address, l.next, l.route); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	// Frames by ndo_xdp_xmit are taken only by a veth with XDP or GRO: GRO in every lane, so that all are alike.
	l, err := netlink.LinkByIndex(s.UplinkIndex)
	if err != nil {
		return err
	}
	return ethtool(l.Attrs().Name, unix.ETHTOOL_SGRO, 1)
}

// address gives a link an address, its only neighbour, and a route to it.
func address(index int, own netip.Prefix, next net.HardwareAddr, route netip.Prefix) error {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(own)}); err != nil {
		return err
	}
	via := own.Addr().Next().AsSlice()
	if err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: index, IP: via, HardwareAddr: next, State: netlink.NUD_PERMANENT}); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: ipNet(route), Gw: via})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Entered and Left count the frames that the box's uplink took in, and those that reached the sink.
func (s *Site) Entered() (uint64, error) { return received(s.Box, Uplink) }

// Left counts the frames that reached the sink.
func (s *Site) Left() (uint64, error) { return received(s.Sink, far) }

func received(n *Namespace, name string) (packets uint64, err error) {
	err = n.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		packets = l.Attrs().Statistics.RxPackets
		return nil
	})
	return packets, err
}

// Close takes the lane away.
func (s *Site) Close() error {
	var errs []error
	if s.sink != nil {
		errs = append(errs, s.sink.Close())
	}
	for _, n := range []*Namespace{s.Generator, s.Box, s.Sink} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}
