package child

import (
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// place is an address, and of a link-local one of IPv6 the interface that it belongs to; else the kernel routes as it
// likes, and an answer may leave by another interface than the question came by.
type place struct {
	netip.Addr     // without a zone; invalid: none
	scope      int // an interface's index, or 0
}

func placeOf(a netip.Addr, index int) place {
	a = a.Unmap()
	if !a.Is6() || !a.IsLinkLocalUnicast() {
		index = 0
	}
	return place{a.WithZone(""), index}
}

// endpoint is where a peer is, and the address of ours that it speaks to. Packets share endpoints: nothing of one changes
// but that its source is forgotten.
type endpoint struct {
	remote place
	port   uint16
	local  place // none, of an endpoint that was configured
	forgot atomic.Bool
}

// parseEndpoint reads ADDR:PORT or [ADDR]:PORT, with a zone where ADDR is link-local.
func parseEndpoint(text string) (conn.Endpoint, error) {
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return nil, err
	}
	index := 0
	if zone := ap.Addr().Zone(); zone != "" {
		if index, err = strconv.Atoi(zone); err != nil {
			iface, err := net.InterfaceByName(zone)
			if err != nil {
				return nil, err
			}
			index = iface.Index
		}
	}
	return &endpoint{remote: placeOf(ap.Addr(), index), port: ap.Port()}, nil
}

// source is the address that the peer last spoke to.
func (e *endpoint) source() place {
	if e.forgot.Load() {
		return place{}
	}
	return e.local
}

// ClearSrc forgets the source, until the peer speaks again.
func (e *endpoint) ClearSrc() { e.forgot.Store(true) }

func (e *endpoint) SrcIP() netip.Addr   { return e.source().Addr }
func (e *endpoint) SrcToString() string { return e.SrcIP().String() }
func (e *endpoint) DstIP() netip.Addr   { return e.remote.Addr }

// DstToString is what parseEndpoint reads.
func (e *endpoint) DstToString() string {
	addr := e.remote.Addr
	if e.remote.scope != 0 {
		zone := strconv.Itoa(e.remote.scope)
		if iface, err := net.InterfaceByIndex(e.remote.scope); err == nil {
			zone = iface.Name
		}
		addr = addr.WithZone(zone)
	}
	return netip.AddrPortFrom(addr, e.port).String()
}

// DstToBytes is what cookies are bound to.
func (e *endpoint) DstToBytes() []byte {
	b, _ := netip.AddrPortFrom(e.remote.Addr, e.port).MarshalBinary() // it has no errors
	return b
}
