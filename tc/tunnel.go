package tc

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
)

// unrouted are destinations that no router forwards: what goes there could never leave by a tunnel. Within a strict prefix as wide as
// a default route they are what keeps the box's own wires alive: DHCP, VRRP, OSPF, link-local BGP and BFD. RFC 3927, RFC 5771
// section 4, RFC 919, RFC 4291.
var unrouted = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/24"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff02::/16"),
}

// enterTunnel writes what concerns tunnels into an interface's entry.
func (i Interface) enterTunnel(entry *abi.Interface) {
	if i.Role != RoleTunnel {
		return
	}
	if i.ClampMSS {
		entry.Flags |= abi.InterfaceClamp
	}
	if i.Encrypted {
		entry.Flags |= abi.InterfaceEncrypted
	}
}

// seeTunnel reads what enterTunnel wrote.
func (i *Interface) seeTunnel(entry abi.Interface) {
	i.ClampMSS = i.Role == RoleTunnel && entry.Flags&abi.InterfaceClamp != 0
	i.Encrypted = i.Role == RoleTunnel && entry.Flags&abi.InterfaceEncrypted != 0
}

// guarded are the keys of the maps of strict prefixes: none where there is no strict tunnel.
func (g Generation) guarded() []netip.Prefix {
	if len(g.Strict) == 0 {
		return nil
	}
	all := append([]netip.Prefix{}, unrouted...)
	for _, o := range g.OnLink {
		all = append(all, o.Prefix)
	}
	return append(all, g.Strict...)
}

// fillStrict writes strict prefixes last: one that the file names outranks an exception of the same length.
func fillStrict(m4, m6 *ebpf.Map, on *links, g Generation) error {
	if len(g.Strict) == 0 {
		return nil
	}
	if err := fillPrefixes(m4, m6, abi.PlainAnywhere, unrouted...); err != nil {
		return err
	}
	for _, o := range g.OnLink {
		ifindex, ok := on.index[o.Interface]
		if !ok {
			return fmt.Errorf("prefix %s: its interface %s is not among those with tcx programs", o.Prefix, o.Interface)
		}
		if err := fillPrefixes(m4, m6, uint32(ifindex), o.Prefix); err != nil {
			return err
		}
	}
	return fillPrefixes(m4, m6, abi.PlainNowhere, g.Strict...)
}
