package fib

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// heardBuffer holds what the kernel says while nobody reads: every route that anybody writes is told, ours as well.
const heardBuffer = 8 << 20

// news is what the kernel told since the writer last looked.
type news struct {
	moved bool             // a next hop may go another way
	down  map[int]struct{} // links that were down, or without carrier: the kernel took routes away, also where they are up again
	lost  bool             // messages did not find room
}

func subscribe(ns netns.NsHandle) (*nl.NetlinkSocket, error) {
	s, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEXTHOP)
	if err != nil {
		return nil, fmt.Errorf("subscribe to route events: %w", err)
	}
	_ = s.SetReceiveBufferSize(heardBuffer, true) // with less, more is lost, and looked up
	return s, nil
}

// follow notes what the kernel tells, until the socket is closed.
func (t *Table) follow(s *nl.NetlinkSocket) {
	for {
		messages, from, err := s.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return
		}
		if err == nil && from.Pid != nl.PidKernel {
			continue // anybody may send to the socket
		}
		for _, m := range messages {
			if link, is := lostLink(m); is && t.lost != nil {
				t.lost(link)
			}
		}
		t.hear(messages, errors.Is(err, unix.ENOBUFS))
	}
}

func (t *Table) hear(messages []syscall.NetlinkMessage, lost bool) {
	t.mu.Lock()
	n := &t.news
	n.lost, n.moved = n.lost || lost, n.moved || lost
	for _, m := range messages {
		n.moved = t.concerns(m) || n.moved
	}
	tell := n.moved
	t.mu.Unlock()
	if tell {
		t.change(func() {})
	}
}

// concerns takes one message, with t.mu held, and says whether it may be about the way to a next hop.
func (t *Table) concerns(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if link, is := lostLink(m); is {
			t.news.down[link] = struct{}{}
		}
		return true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return true
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP: // nh_protocol is the third octet of struct nhmsg
		return len(m.Data) > 2 && m.Data[2] != Protocol
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		prefix, ok := told(m.Data)
		return ok && t.holdsTracked(prefix)
	}
	return false
}

// lostLink is the link that a message says has gone, is down, or has no carrier.
func lostLink(m syscall.NetlinkMessage) (index int, is bool) {
	const up = unix.IFF_UP | unix.IFF_LOWER_UP
	if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK || len(m.Data) < unix.SizeofIfInfomsg {
		return 0, false
	}
	i := nl.DeserializeIfInfomsg(m.Data)
	return int(i.Index), m.Header.Type == unix.RTM_DELLINK || i.Flags&up != up
}

// told is the prefix of a route that is not ours.
func told(data []byte) (netip.Prefix, bool) {
	if len(data) < unix.SizeofRtMsg {
		return netip.Prefix{}, false
	}
	r := nl.DeserializeRtMsg(data)
	if r.Protocol == Protocol || r.Table == unix.RT_TABLE_LOCAL { // addresses have events of their own
		return netip.Prefix{}, false
	}
	addr := netip.IPv4Unspecified()
	if r.Family == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	for rest := data[unix.SizeofRtMsg:]; len(rest) >= unix.SizeofRtAttr; {
		length := int(binary.NativeEndian.Uint16(rest))
		if length < unix.SizeofRtAttr || length > len(rest) {
			break
		}
		if binary.NativeEndian.Uint16(rest[2:]) == unix.RTA_DST {
			addr, _ = netip.AddrFromSlice(rest[unix.SizeofRtAttr:length])
		}
		rest = rest[min(len(rest), (length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
	prefix, err := addr.Prefix(int(r.Dst_len))
	return prefix, err == nil
}

// holdsTracked says whether a next hop, or what a tunnel's packets go to, is inside a prefix.
func (t *Table) holdsTracked(prefix netip.Prefix) bool {
	for addr := range t.uses {
		if prefix.Contains(addr) {
			return true
		}
	}
	return len(t.tunnels.inside(prefix)) > 0
}
