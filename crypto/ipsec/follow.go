package ipsec

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A peer behind a NAT comes from another port, or another address, when the NAT forgets it or it moves. For states in UDP the kernel
// tells of each packet that was authentic and came from elsewhere than its state says (km_new_mapping in esp_input_done2), so
// nobody but the peer can move itself. Then what is sent follows; states for receiving do not ask for the source and stay. Those name no
// source port, so the kernel tells of every peer now and then, and of a port that changes at once.

const (
	mappingMessage   = 0x26 // XFRM_MSG_MAPPING of linux/xfrm.h
	mappingGroup     = 8    // XFRMNLGRP_MAPPING
	mappingThreshold = 32   // XFRMA_MTIMER_THRESH, since 5.18: the kernel tells of one place at most so often, in seconds
	mappingPause     = 2
)

// followPause is between two sockets.
const followPause = 5 * time.Second

// mapping is struct xfrm_user_mapping: 64 bytes, addresses and ports in network byte order.
type mapping struct {
	local netip.Addr
	spi   uint32
	reqid uint32
	from  netip.AddrPort
}

func parseMapping(b []byte) (m mapping, ok bool) {
	if len(b) < 64 {
		return m, false
	}
	family := binary.NativeEndian.Uint16(b[20:])
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return m, false
	}
	addr := func(at int) netip.Addr { return addrOf(nl.XfrmAddress(b[at:at+16]), family) }
	return mapping{
		local: addr(0), spi: binary.BigEndian.Uint32(b[16:]), reqid: binary.NativeEndian.Uint32(b[24:]),
		from: netip.AddrPortFrom(addr(44), binary.BigEndian.Uint16(b[62:])),
	}, true
}

func (d *Driver) anyInUDP() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tunnels {
		for _, p := range t.peers {
			if p.standing && t.want.udp() {
				return true
			}
		}
	}
	return false
}

// teller is a socket that hears of mappings.
type teller interface {
	Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error)
	Close()
}

func (d *Driver) subscribe() (teller, error) {
	return nl.SubscribeAt(d.xfrm.ns, netns.None(), unix.NETLINK_XFRM, mappingGroup)
}

// follow moves peers until ctx ends. A socket that fails is told of once, and replaced.
func (d *Driver) follow(ctx context.Context, subscribe func() (teller, error)) {
	told := false
	for ctx.Err() == nil {
		heard, err := d.followFrom(ctx, subscribe)
		if ctx.Err() != nil {
			return
		}
		if heard || !told {
			d.log.Error("IPsec peers that move behind a NAT are not followed for a moment", "error", err)
		}
		told = true
		select {
		case <-ctx.Done():
		case <-time.After(followPause):
		}
	}
}

// followFrom hears one socket until it fails or ctx ends; heard: it told of something before. What is lost when too much is
// told at once is told again by the next packet.
func (d *Driver) followFrom(ctx context.Context, subscribe func() (teller, error)) (heard bool, err error) {
	s, err := subscribe()
	if err != nil {
		return false, err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	for {
		list, _, err := s.Receive()
		if ctx.Err() == nil && (errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN)) {
			continue
		}
		if err != nil {
			return heard, err
		}
		heard = true
		for _, m := range list {
			if m.Header.Type != mappingMessage {
				continue
			}
			if one, ok := parseMapping(m.Data); ok {
				if err := d.move(one); err != nil {
					d.log.Error("follow an IPsec peer", "to", one.from, "error", err)
				}
			}
		}
	}
}
