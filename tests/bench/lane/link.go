package lane

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddVeth makes a pair: name where the calling thread is, and peer in another namespace.
func AddVeth(name, peer string, at *Namespace) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(at.handle)})
}

// Up sets a link of the calling thread's namespace up.
func Up(name string) (index int, mac net.HardwareAddr, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, nil, err
	}
	return l.Attrs().Index, l.Attrs().HardwareAddr, netlink.LinkSetUp(l)
}

// SegmentsOff switches TSO, GSO and GRO of a link off: then every packet on it is one that a wire would carry, and each
// lane forwards as many. Native XDP on a veth does the same to its peer.
func SegmentsOff(name string) error {
	for _, feature := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO} {
		if err := ethtool(name, feature, 0); err != nil {
			return err
		}
	}
	return nil
}

// ethtool is one ioctl of it, of struct ethtool_value.
func ethtool(name string, command, data uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("ethtool: %w", err)
	}
	defer unix.Close(fd)
	return ethtoolSet(fd, name, command, data)
}

// AddAddress gives a link of the calling thread's namespace an address.
func AddAddress(index int, a netip.Prefix) error {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(a)}); err != nil {
		return fmt.Errorf("address %s: %w", a, err)
	}
	return nil
}

// AddRoute leads to a prefix by a next hop on the link, or by the link alone where via is invalid. A source that is valid
// is that of what the namespace itself sends there.
func AddRoute(index int, to netip.Prefix, via, source netip.Addr) error {
	r := &netlink.Route{LinkIndex: index, Dst: ipNet(to), Scope: netlink.SCOPE_LINK}
	if via.IsValid() {
		r.Gw, r.Scope, r.Flags = via.AsSlice(), netlink.SCOPE_UNIVERSE, int(netlink.FLAG_ONLINK)
	}
	if source.IsValid() {
		r.Src = source.AsSlice()
	}
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("route %s: %w", to, err)
	}
	return nil
}

// AddNeighbour tells a link who has an address, for good: so nobody asks in the middle of a measurement.
func AddNeighbour(index int, a netip.Addr, mac net.HardwareAddr) error {
	err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: index, IP: a.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", a, err)
	}
	return nil
}
