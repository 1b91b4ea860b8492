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
	moved   bool             // a next hop may go another way
	down    map[int]struct{} // links that were down, or without carrier: the kernel took routes away, also where they are up again
	touched bool             // somebody changed what is ours, or messages did not find room
	carrier bool             // a link's came or went
}

// subscribe hears what others than the socket with this port do.
func subscribe(ns netns.NsHandle, port uint32) (*nl.NetlinkSocket, error) {
	s, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEXTHOP)
	if err != nil {
		return nil, fmt.Errorf("subscribe to route events: %w", err)
	}
	_ = s.SetReceiveBufferSize(heardBuffer, true) // with less, more is lost, and looked up
	// A million routes of ours are a million messages, each time. Each has a buffer of its own; BPF loads as the network's order does.
	swapped := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port))
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12}, // nlmsg_pid
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: swapped, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	if err := unix.SetsockoptSockFprog(s.GetFd(), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		s.Close()
		return nil, fmt.Errorf("filter route events: %w", err)
	}
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
	n.touched, n.moved = n.touched || lost, n.moved || lost
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
		t.news.carrier = t.carriers.changed(m) || t.news.carrier
		return true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return true
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP: // nh_protocol is the third octet of struct nhmsg
		t.news.touched = t.news.touched || len(m.Data) > 2 && m.Data[2] == Protocol && stranger(m)
		return t.news.touched || len(m.Data) > 2 && m.Data[2] != Protocol
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE: // rtm_protocol is the sixth octet of struct rtmsg
		if len(m.Data) > 5 && m.Data[5] == Protocol && stranger(m) {
			t.news.touched = true
			return true
		}
		prefix, ok := told(m.Data)
		return ok && t.holdsTracked(prefix)
	}
	return false
}

// stranger says that a message tells of what another process did. What the kernel does by itself follows from a link, which it tells of.
func stranger(m syscall.NetlinkMessage) bool { return m.Header.Pid != 0 }

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
	attributes(data[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		if kind == unix.RTA_DST {
			addr, _ = netip.AddrFromSlice(value)
		}
	})
	prefix, err := addr.Prefix(int(r.Dst_len))
	return prefix, err == nil
}

// holdsTracked says whether a next hop, or what a tunnel's packets go to, is inside a prefix.
func (t *Table) holdsTracked(prefix netip.Prefix) bool {
	for addr := range t.sets.uses {
		if prefix.Contains(addr) {
			return true
		}
	}
	return len(t.tunnels.inside(prefix)) > 0
}
