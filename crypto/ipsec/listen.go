package ipsec

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// A peer that has lost its disk begins in an epoch that nobody stands ready for. Its packets still say who it is, by the tag
// of their SPI, and the epoch's low bits; which epoch it is, the packet itself proves, for only the right key opens it. So a
// socket looks at the packets of silent peers, and nothing is believed that was not authenticated.

// ear is a peer that is listened for.
type ear struct {
	tunnel, peer string
	local        netip.AddrPort
	udp          bool
	direction    direction // of what it sends
	heard        uint64
}

const (
	// listenFor is how long a packet that nobody stood ready for, or a peer that was set, has silent peers listened for. TCP repeats itself
	// after 1, 2, 4, 8, 16 s, so somebody who begins to speak is found by the second packet.
	listenFor = 20 * time.Second
	// Searching in vain, 0.15 to 0.4 s of CPU for a forged packet, has searchShare of the time at most.
	searchShare = 8
	// Who was searched for in vain is not for a pause, which doubles.
	firstPause, lastPause = time.Second, 8 * time.Second
)

// listener looks at packets beside the inspections. While it does, a filter of some 20 instructions is run for every packet that the
// machine receives, with a search for the SPI behind it where that is ESP or UDP; nothing is copied but what is of ears.
type listener struct {
	found func(e ear, epoch uint64) error
	past  func(e ear, esp []byte) bool
	fault func(error)
	now   func() time.Time

	// The keeper's alone.
	socket  *os.File           // nil: nobody listens
	end     context.CancelFunc // of socket's reader
	readers sync.WaitGroup
	tags    []uint32 // of socket's filter, sorted

	mu    sync.Mutex
	ears  []ear
	stood map[seat]bool // a packet came of it that the kernel stood ready for
}

// seat is where a state receives.
type seat struct {
	dst netip.AddrPort // port 0: not in UDP
	spi uint32
}

// tend has ears listened for from now on; where there are none, nobody listens. It is called in the network namespace to listen in.
func (l *listener) tend(ctx context.Context, ears []ear) error {
	var tags []uint32
	for _, e := range ears {
		tags = append(tags, e.direction.tag)
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	l.mu.Lock()
	l.ears, l.stood = ears, map[seat]bool{}
	l.mu.Unlock()
	switch {
	case len(ears) == 0:
		l.close()
	case l.socket == nil:
		socket, err := packetSocket(tags)
		if err != nil {
			return err
		}
		ctx, l.end = context.WithCancel(ctx)
		l.socket = socket
		l.readers.Go(func() { l.read(ctx, socket) })
	case !slices.Equal(tags, l.tags):
		conn, err := l.socket.SyscallConn()
		if err == nil {
			err = errors.Join(conn.Control(func(fd uintptr) { err = setFilter(int(fd), tags) }), err)
		}
		if err != nil {
			return err
		}
	}
	l.tags = tags
	return nil
}

func (l *listener) close() {
	if l.socket == nil {
		return
	}
	l.end()
	l.socket.Close()
	l.socket = nil
}

// read looks at what comes until ctx ends.
func (l *listener) read(ctx context.Context, socket io.Reader) {
	doubts := map[string]*pause{}
	for buf := make([]byte, 1<<16); ctx.Err() == nil; {
		n, err := socket.Read(buf)
		began, rest := time.Now(), time.Duration(0)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			l.fault(err)
			rest = firstPause
		case l.examine(buf[:n], doubts):
			rest = (searchShare - 1) * time.Since(began) // what comes meanwhile waits
		}
		if rest > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(rest):
			}
		}
	}
}

// examine looks at one packet, and says whether it was searched for an epoch in vain. doubts are of peers, by tunnel and name.
func (l *listener) examine(packet []byte, doubts map[string]*pause) (vain bool) {
	dst, esp, udp := espOf(packet)
	if esp == nil {
		return false
	}
	e, ok := l.whose(dst, binary.BigEndian.Uint32(esp), udp)
	if !ok {
		return false
	}
	if stands(e.direction, esp, e.heard) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stood[seat{dst, binary.BigEndian.Uint32(esp)}] = true
		return false
	}
	id := e.tunnel + "/" + e.peer
	if doubts[id] == nil {
		doubts[id] = &pause{}
	}
	if !doubts[id].over(l.now()) {
		return false
	}
	epoch, found := uint64(0), false
	if !l.past(e, esp) {
		epoch, found = search(e.direction, esp, e.heard, l.now())
	}
	doubts[id].after(found, l.now())
	if !found {
		return true
	}
	l.mu.Lock()
	l.ears = slices.DeleteFunc(slices.Clone(l.ears), func(o ear) bool { return o.tunnel == e.tunnel && o.peer == e.peer })
	l.mu.Unlock()
	if err := l.found(e, epoch); err != nil {
		l.fault(err)
	}
	return false
}

// whose returns the ear that an SPI is of, unless such packets are known to be the kernel's.
func (l *listener) whose(dst netip.AddrPort, spi uint32, udp bool) (ear, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.ears, func(e ear) bool {
		return e.direction.owns(spi) && dst.Addr() == e.local.Addr() && udp == e.udp && (!udp || dst.Port() == port(e.local))
	})
	if i < 0 || l.stood[seat{dst, spi}] {
		return ear{}, false
	}
	return l.ears[i], true
}
