package fib

import (
	"net/netip"
	"slices"
	"time"
)

// links remembers for a moment which link a next hop is on: a full table has a million prefixes behind two of them, and to ask for
// each costs as much as to install the route.
type links struct {
	kernel kernel
	asked  time.Time
	known  map[netip.Addr]resolved
	last   []netip.Addr // the list that was given last, to be shared
}

type resolved struct {
	hop hop
	err error
}

// remembered bounds how old an answer may be. A link that goes meanwhile is the kernel's to refuse, as one that goes between asking
// and installing always was.
const remembered = 100 * time.Millisecond

func newLinks(k kernel) *links { return &links{kernel: k, known: map[netip.Addr]resolved{}} }

func (l *links) resolve(addr netip.Addr) (hop, error) {
	if now := time.Now(); now.Sub(l.asked) > remembered {
		clear(l.known)
		l.asked = now
	}
	r, known := l.known[addr]
	if !known {
		r.hop, r.err = l.kernel.resolve(addr)
		l.known[addr] = r
	}
	return r.hop, r.err
}

// list is the addresses of hops. Routes with the same ones share a list, which nobody changes.
func (l *links) list(hops []hop) []netip.Addr {
	if slices.EqualFunc(l.last, hops, func(a netip.Addr, h hop) bool { return a == h.addr }) {
		return l.last
	}
	l.last = make([]netip.Addr, len(hops))
	for i, h := range hops {
		l.last[i] = h.addr
	}
	return l.last
}
