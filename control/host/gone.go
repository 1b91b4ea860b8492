package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Gone is one thing that was deleted, by whomever: it says what was there, and not whose doing it was. One of Route, Rule, Address and Link
// is set, or Lost.
type Gone struct {
	Route  netip.Prefix // of a protocol that is watched
	Table  int
	Metric int // over IPv6 never 0

	Rule int  // priority of a routing rule of RouteProtocol
	IPv6 bool // of Rule

	Address netip.Prefix // not masked

	Link string // a link, or that of Address

	Lost bool // messages did not find room: anything may be gone
}

// WatchGone calls tell for what is deleted, until ctx ends: routes of these protocols, our rules, addresses and links. Routes of any other
// protocol cost this process nothing: the kernel drops the message. So it does with routes that it removes by itself, which follow from a link.
func (h *Host) WatchGone(ctx context.Context, protocols []byte, tell func(Gone)) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return fmt.Errorf("subscribe to deletions: %w", err)
	}
	filter := goneFilter(protocols)
	if err := unix.SetsockoptSockFprog(s.GetFd(), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		s.Close()
		return fmt.Errorf("filter deletions: %w", err)
	}
	context.AfterFunc(ctx, s.Close) // wakes the reader
	names := func(index int) string {
		if link, err := h.nl.LinkByIndex(index); err == nil {
			return link.Attrs().Name
		}
		return ""
	}
	heard := make(chan []syscall.NetlinkMessage)
	go read(ctx, s, heard)
	go func() {
		for messages := range heard {
			if messages == nil {
				tell(Gone{Lost: true})
			}
			for _, m := range messages {
				if g, ok := goneOf(m, names); ok {
					tell(g)
				}
			}
		}
	}()
	return nil
}

// goneFilter passes deletions, of routes those with one of these protocols that a process asked for. BPF loads as the network's order does, and
// netlink's header is in the host's. Each message of a notification has a buffer of its own.
func goneFilter(protocols []byte) []unix.SockFilter {
	const typeAt, portAt, protocolAt = 4, 12, unix.SizeofNlMsghdr + 5 // nlmsg_type, nlmsg_pid; rtm_protocol of struct rtmsg
	const load, is = unix.BPF_LD | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	kind := func(k uint16) uint32 {
		return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, k)))
	}
	n := uint8(len(protocols))
	f := []unix.SockFilter{
		{Code: load | unix.BPF_H, K: typeAt},
		{Code: is, K: kind(unix.RTM_DELRULE), Jt: n + 7},
		{Code: is, K: kind(unix.RTM_DELADDR), Jt: n + 6},
		{Code: is, K: kind(unix.RTM_DELLINK), Jt: n + 5},
		{Code: is, K: kind(unix.RTM_DELROUTE), Jf: n + 3},
		{Code: load | unix.BPF_W, K: portAt},
		{Code: is, K: 0, Jt: n + 1},
		{Code: load | unix.BPF_B, K: protocolAt},
	}
	for i, p := range protocols {
		f = append(f, unix.SockFilter{Code: is, K: uint32(p), Jt: n - uint8(i)})
	}
	return append(f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff})
}

// goneOf reads a message that the filter let through.
func goneOf(m syscall.NetlinkMessage, name func(index int) string) (g Gone, ok bool) {
	switch m.Header.Type {
	case unix.RTM_DELROUTE:
		return goneRoute(m.Data)
	case unix.RTM_DELRULE:
		return goneRule(m.Data)
	case unix.RTM_DELLINK:
		header := unix.NlMsghdr(m.Header)
		l, err := netlink.LinkDeserialize(&header, m.Data)
		if err != nil || nl.DeserializeIfInfomsg(m.Data).Family != unix.AF_UNSPEC {
			return g, false // a bridge port's own messages come as AF_BRIDGE
		}
		return Gone{Link: l.Attrs().Name}, true
	case unix.RTM_DELADDR:
		if len(m.Data) < unix.SizeofIfAddrmsg {
			return g, false
		}
		head := nl.DeserializeIfAddrmsg(m.Data)
		found := attributes(m.Data[unix.SizeofIfAddrmsg:])
		address, ok := netip.AddrFromSlice(found[unix.IFA_LOCAL]) // of IPv4; IFA_ADDRESS may be the other end's
		if !ok {
			address, ok = netip.AddrFromSlice(found[unix.IFA_ADDRESS])
		}
		return Gone{Address: netip.PrefixFrom(address, int(head.Prefixlen)), Link: name(int(head.Index))}, ok
	}
	return g, false
}

func goneRoute(data []byte) (g Gone, ok bool) {
	if len(data) < unix.SizeofRtMsg {
		return g, false
	}
	head := nl.DeserializeRtMsg(data)
	found := attributes(data[unix.SizeofRtMsg:])
	address, there := netip.AddrFromSlice(found[unix.RTA_DST])
	switch {
	case there:
	case head.Family == unix.AF_INET6:
		address = netip.IPv6Unspecified()
	default:
		address = netip.IPv4Unspecified()
	}
	return Gone{Route: netip.PrefixFrom(address, int(head.Dst_len)), Table: number(found[unix.RTA_TABLE]), Metric: number(found[unix.RTA_PRIORITY])}, true
}

func goneRule(data []byte) (g Gone, ok bool) {
	if len(data) < unix.SizeofRtMsg { // struct fib_rule_hdr is as long
		return g, false
	}
	found := attributes(data[unix.SizeofRtMsg:])
	if owner := found[nl.FRA_PROTOCOL]; len(owner) != 1 || owner[0] != RouteProtocol {
		return g, false
	}
	return Gone{Rule: number(found[nl.FRA_PRIORITY]), IPv6: data[0] == unix.AF_INET6}, true
}

// number reads 32 bits in the host's order; 0: there are none.
func number(value []byte) int {
	if len(value) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(value))
}

// attributes are those of a message, by kind.
func attributes(data []byte) map[uint16][]byte {
	list, _ := nl.ParseRouteAttr(data) // what cannot be read is not there
	out := make(map[uint16][]byte, len(list))
	for _, a := range list {
		out[a.Attr.Type] = a.Value
	}
	return out
}
