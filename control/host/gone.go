package host

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Gone is one thing that was deleted, by whomever: it says what was there, and not whose doing it was. One of Route, Rule, Address and Link
// is set.
//
// A route that somebody replaced by one of another protocol, and a link that was set down, are gone, too.
type Gone struct {
	Route  netip.Prefix // of a protocol that is watched
	Table  int
	Metric int // over IPv6 never 0

	Rule int  // priority of a routing rule of RouteProtocol
	IPv6 bool // of Rule

	Address netip.Prefix // not masked

	Link  string // a link, or that of Address
	Index int    // of Link
	Down  bool   // Link is still there
}

// watchFilter lets through what Watch is about, of routes those that a process deleted and that have one of these protocols: all others, and
// what the kernel removes by itself, which follows from a link, cost this process nothing. BPF loads as the network's order does, and
// netlink's header is in the host's. Each message of a notification has a buffer of its own.
func watchFilter(protocols []byte) []unix.SockFilter {
	const typeAt, portAt, protocolAt = 4, 12, unix.SizeofNlMsghdr + 5 // nlmsg_type, nlmsg_pid; rtm_protocol of struct rtmsg
	const load, is, ret = unix.BPF_LD | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	f := []unix.SockFilter{{Code: load | unix.BPF_H, K: typeAt}}
	for _, kind := range []uint16{unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_DELRULE} {
		f = append(f, unix.SockFilter{Code: is, K: swapped(kind), Jf: 1}, unix.SockFilter{Code: ret, K: 0xffffffff})
	}
	f = append(f,
		unix.SockFilter{Code: is, K: swapped(unix.RTM_DELROUTE), Jt: 1}, unix.SockFilter{Code: ret, K: 0},
		unix.SockFilter{Code: load | unix.BPF_W, K: portAt},
		unix.SockFilter{Code: is, K: 0, Jf: 1}, unix.SockFilter{Code: ret, K: 0},
		unix.SockFilter{Code: load | unix.BPF_B, K: protocolAt})
	for _, p := range protocols {
		f = append(f, unix.SockFilter{Code: is, K: uint32(p), Jf: 1}, unix.SockFilter{Code: ret, K: 0xffffffff})
	}
	return append(f, unix.SockFilter{Code: ret, K: 0})
}

// swapped is 16 bits of the host's order as BPF loads them.
func swapped(value uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, value)))
}

func goneAddress(data []byte, of Event) (g Gone, ok bool) {
	found := attributes(data[unix.SizeofIfAddrmsg:])
	address, ok := netip.AddrFromSlice(found[unix.IFA_LOCAL]) // of IPv4; IFA_ADDRESS may be the other end's
	if !ok {
		address, ok = netip.AddrFromSlice(found[unix.IFA_ADDRESS])
	}
	return Gone{Address: netip.PrefixFrom(address, int(nl.DeserializeIfAddrmsg(data).Prefixlen)), Link: of.Link, Index: of.Index}, ok
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
