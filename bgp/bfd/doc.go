// Package bfd is Bidirectional Forwarding Detection: single-hop asynchronous sessions over IPv4 and IPv6 (RFC 5880,
// RFC 5881), without authentication, echo function and demand mode of our own.
//
// session is the state machine: it has no socket and no clock. Server gives it both: one listener per family on UDP port
// 3784, a sending socket and a timer per session. A down is counted, not signalled: who compares Status.Downs misses none,
// however late it looks.
package bfd

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"
)

// Config is a session that is wanted. Peer and Interface are its key; Set changes everything else of a session live.
type Config struct {
	Local      netip.Addr    `json:"local"` // source address; invalid: the kernel chooses
	Peer       netip.Addr    `json:"peer"`  // without a zone: that is Interface
	Interface  string        `json:"interface,omitempty"`
	MinTx      time.Duration `json:"min_tx"` // Desired Min TX Interval once up; before that it is at least a second
	MinRx      time.Duration `json:"min_rx"` // Required Min RX Interval
	Multiplier uint8         `json:"multiplier"`
}

// Bounds of the intervals. Below the lower one a loaded machine's scheduler decides, not the link.
const (
	MinInterval = 10 * time.Millisecond
	MaxInterval = time.Minute
)

type key struct {
	peer  netip.Addr
	iface string
}

func (k key) compare(l key) int { return cmp.Or(k.peer.Compare(l.peer), cmp.Compare(k.iface, l.iface)) }

func (k key) String() string {
	if k.iface == "" {
		return k.peer.String()
	}
	return k.peer.String() + "%" + k.iface
}

func (c Config) key() key { return key{c.Peer, c.Interface} }

// Compare orders sessions by their key.
func (c Config) Compare(d Config) int { return c.key().compare(d.key()) }

func (c Config) check() error {
	switch {
	case !c.Peer.IsValid() || c.Peer.Is4In6() || c.Peer.Zone() != "" || c.Peer.IsUnspecified() || c.Peer.IsMulticast():
		return fmt.Errorf("BFD peer %s: want the IPv4 or IPv6 address of one neighbor, and its zone as the interface", c.Peer)
	case c.Peer.IsLinkLocalUnicast() && c.Peer.Is6() && c.Interface == "":
		return fmt.Errorf("BFD peer %s: a link-local address needs its interface", c.Peer)
	case c.Local.IsValid() && c.Local.Is4() != c.Peer.Is4():
		return fmt.Errorf("BFD peer %s: the local address %s is of another family", c.Peer, c.Local)
	case c.Multiplier == 0:
		return fmt.Errorf("BFD peer %s: multiplier 0: want 1 to 255", c.Peer)
	}
	for _, d := range []time.Duration{c.MinTx, c.MinRx} {
		if d < MinInterval || d > MaxInterval {
			return fmt.Errorf("BFD peer %s: interval %v: want %v to %v", c.Peer, d, MinInterval, MaxInterval)
		}
	}
	return nil
}
