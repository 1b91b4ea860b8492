package host

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// GatherFacts reads what the compiler needs to know of the machine.
func (h *Host) GatherFacts(ctx context.Context) (Facts, error) {
	if err := ctx.Err(); err != nil {
		return Facts{}, err
	}
	release, err := kernelRelease()
	if err != nil {
		return Facts{}, err
	}
	links, addresses, err := h.linksAndAddresses()
	if err != nil {
		return Facts{}, err
	}
	f := Facts{KernelRelease: release}
	if f.LocalPorts, err = localPorts(); err != nil {
		return Facts{}, err
	}
	for _, l := range links {
		fact := factOf(l, links)
		fact.Addresses = addresses[l.Attrs().Index]
		f.Links = append(f.Links, fact)
	}
	return f, nil
}

// factOf says all but the addresses.
func factOf(l netlink.Link, links []netlink.Link) LinkFact {
	a := l.Attrs()
	return LinkFact{Name: a.Name, Index: a.Index, Kind: kindOf(l), MTU: a.MTU, Up: a.Flags&net.FlagUp != 0,
		Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0, PeerHere: peerHere(l, links), VRF: vrfOf(l, links), Alias: a.Alias}
}

// linksAndAddresses lists links by name, and addresses, sorted, by link index.
func (h *Host) linksAndAddresses() ([]netlink.Link, map[int][]netip.Prefix, error) {
	links, err := h.links()
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(links, func(a, b netlink.Link) int { return cmp.Compare(a.Attrs().Name, b.Attrs().Name) })
	addrs, err := netdump.List(func() ([]netlink.Addr, error) { return h.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	byLink := make(map[int][]netip.Prefix)
	for _, a := range addrs {
		byLink[a.LinkIndex] = append(byLink[a.LinkIndex], prefixOf(a.IPNet))
	}
	for _, list := range byLink {
		slices.SortFunc(list, comparePrefix)
	}
	return links, byLink, nil
}

// localPorts reads net.ipv4.ip_local_port_range of this namespace.
func localPorts() (ports [2]uint16, err error) {
	value, err := readSysctl("net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(value, &ports[0], &ports[1])
	}
	if err != nil {
		return ports, fmt.Errorf("sysctl net.ipv4.ip_local_port_range, which says %q: %w", value, err)
	}
	return ports, nil
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("read the kernel release: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// kindOf is rtnetlink's kind, "" for a physical link and lo.
func kindOf(l netlink.Link) string {
	if l.Type() == "device" {
		return ""
	}
	return l.Type()
}

// vrfOf is the name of the VRF that a link is a port of.
func vrfOf(l netlink.Link, links []netlink.Link) string {
	for _, master := range links {
		if master.Attrs().Index == l.Attrs().MasterIndex && master.Type() == "vrf" {
			return master.Attrs().Name
		}
	}
	return ""
}

// LinksHere are the links of the calling thread's network namespace by name, without their addresses.
func LinksHere(ctx context.Context) (map[string]LinkFact, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer nl.Close()
	links, err := netdump.List(nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := map[string]LinkFact{}
	for _, l := range links {
		out[l.Attrs().Name] = factOf(l, links)
	}
	return out, ctx.Err()
}

// peerHere says that l is a veth or netkit whose other end is in this namespace too: the kernel gives the peer's index, and
// the peer's namespace only where it is another one.
func peerHere(l netlink.Link, links []netlink.Link) bool {
	a := l.Attrs()
	return (l.Type() == "veth" || l.Type() == "netkit") && a.NetNsID < 0 && slices.ContainsFunc(links, func(p netlink.Link) bool {
		return p.Attrs().Index == a.ParentIndex && p.Attrs().ParentIndex == a.Index
	})
}
