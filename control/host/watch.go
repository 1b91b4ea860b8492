package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxPending bounds the events that wait for a reader.
const maxPending = 1024

// Event is what became of one link since the last event of it. Its fields are the present state, not the change.
type Event struct {
	Index   int
	Link    string // its name
	Exists  bool   // false: deleted; the fields below then are the last known ones
	Up      bool   // administratively
	Carrier bool
	MTU     int // bytes
	// Addresses says that an address of the link came or went.
	Addresses bool
	// Resync says that the kernel's messages were lost: every other field is zero, and all must be looked at again.
	Resync bool
}

// Watch reports links that come, go or change, and links whose addresses changed, until ctx ends; then it closes the
// channel. It first reports nothing: read the facts after Watch returned. Events that nobody takes are merged, one per
// link, so a slow reader sees the last state of each; beyond maxPending links they become one Resync.
//
// gone is called for everything that is deleted, of links and addresses before their event comes: routes of these protocols, our
// rules, addresses and links; and for links that are set down. It must not block. A Resync stands for deletions, too.
func (h *Host) Watch(ctx context.Context, gone func(Gone), protocols ...byte) (<-chan Event, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to link events: %w", err)
	}
	program := watchFilter(protocols)
	if err := unix.SetsockoptSockFprog(s.GetFd(), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}); err != nil {
		s.Close()
		return nil, fmt.Errorf("filter link events: %w", err)
	}
	links, err := h.links() // after subscribing: nothing falls in between
	if err != nil {
		s.Close()
		return nil, err
	}
	w := &watcher{gone: gone, known: make(map[int]Event, len(links))}
	for _, l := range links {
		e := eventOf(l)
		w.known[e.Index] = e
	}
	heard := make(chan []syscall.NetlinkMessage)
	context.AfterFunc(ctx, s.Close) // wakes the reader
	go read(ctx, s, heard)
	out := make(chan Event)
	go func() {
		defer close(out)
		w.run(ctx, heard, out, h.links)
	}()
	return out, nil
}

// read hands the kernel's messages on; nil stands for messages that were lost (ENOBUFS).
func read(ctx context.Context, s *nl.NetlinkSocket, heard chan<- []syscall.NetlinkMessage) {
	defer close(heard)
	for {
		messages, from, err := s.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		if err == nil && from.Pid != nl.PidKernel {
			continue // anybody may send to the socket
		}
		select {
		case heard <- messages:
		case <-ctx.Done():
			return
		}
	}
}

// watcher holds the last state of every link, and the events that nobody took yet, in the order of their first cause.
type watcher struct {
	gone    func(Gone)
	known   map[int]Event
	pending []Event
}

func (w *watcher) run(ctx context.Context, heard <-chan []syscall.NetlinkMessage, out chan<- Event, list func() ([]netlink.Link, error)) {
	for {
		var ready chan<- Event
		var next Event
		if len(w.pending) > 0 {
			ready, next = out, w.pending[0]
		}
		select {
		case <-ctx.Done():
			return
		case ready <- next:
			w.pending = w.pending[1:]
		case messages, open := <-heard:
			switch {
			case !open:
				return
			case messages == nil:
				w.resync(list)
			default:
				for _, m := range messages {
					w.take(m)
				}
			}
		}
	}
}

// resync starts over after lost messages. Where listing fails, the next message of a link makes it known again.
func (w *watcher) resync(list func() ([]netlink.Link, error)) {
	w.pending = []Event{{Resync: true}}
	links, err := list()
	if err != nil {
		return
	}
	clear(w.known)
	for _, l := range links {
		e := eventOf(l)
		w.known[e.Index] = e
	}
}

func eventOf(l netlink.Link) Event {
	a := l.Attrs()
	return Event{
		Index: a.Index, Link: a.Name, Exists: true, MTU: a.MTU,
		Up: a.Flags&net.FlagUp != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
	}
}

func (w *watcher) take(m syscall.NetlinkMessage) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		header := unix.NlMsghdr(m.Header)
		l, err := netlink.LinkDeserialize(&header, m.Data)
		if err != nil || nl.DeserializeIfInfomsg(m.Data).Family != unix.AF_UNSPEC {
			return // a bridge port's own messages come as AF_BRIDGE
		}
		e := eventOf(l)
		if m.Header.Type == unix.RTM_DELLINK {
			e.Exists = false
			delete(w.known, e.Index)
			w.gone(Gone{Link: e.Link, Index: e.Index})
			w.merge(e)
		} else if w.known[e.Index] != e { // most of these messages tell of other attributes
			if w.known[e.Index].Up && !e.Up {
				w.gone(Gone{Link: e.Link, Index: e.Index, Down: true})
			}
			w.known[e.Index] = e
			w.merge(e)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(m.Data) < unix.SizeofIfAddrmsg {
			return
		}
		index := int(nl.DeserializeIfAddrmsg(m.Data).Index)
		if e, ok := w.known[index]; ok {
			if g, whole := goneAddress(m.Data, e); whole && m.Header.Type == unix.RTM_DELADDR {
				w.gone(g)
			}
			e.Addresses = true
			w.merge(e)
		}
	case unix.RTM_DELROUTE:
		if g, ok := goneRoute(m.Data); ok {
			w.gone(g)
		}
	case unix.RTM_DELRULE:
		if g, ok := goneRule(m.Data); ok {
			w.gone(g)
		}
	}
}

// merge puts e in place of the link's pending event, if there is one. A deletion is never merged with a new link of the
// same index and another name.
func (w *watcher) merge(e Event) {
	i := slices.IndexFunc(w.pending, func(p Event) bool { return !p.Resync && p.Index == e.Index && p.Exists })
	switch {
	case i < 0 && len(w.pending) >= maxPending:
		w.pending = []Event{{Resync: true}}
		return
	case i < 0:
		w.pending = append(w.pending, e)
		return
	}
	e.Addresses = e.Addresses || w.pending[i].Addresses
	w.pending[i] = e
}
