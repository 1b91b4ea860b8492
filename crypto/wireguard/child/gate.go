package child

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

// gate is a TUN whose outgoing packets can be held for a while. They wait here: the TUN's own queue takes 500, and to
// lengthen it costs packets.
type gate struct {
	tun.Device

	mu    sync.Mutex
	held  bool
	lease *time.Timer // releases what a daemon that died has held
	kept  [][]byte    // oldest first; what came while packets were held, or was injected, and is not read yet
	size  int         // bytes of kept
}

// maxKept bounds kept, in bytes; what comes when it is full is dropped.
const maxKept = 64 << 20

func newGate(d tun.Device) *gate { return &gate{Device: d} }

// Read is the Device's, but packets that come while they are held are kept until they no longer are. It is for one reader.
func (g *gate) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		if n := g.take(bufs, sizes, offset); n > 0 {
			return n, nil
		}
		n, err := g.Device.Read(bufs, sizes, offset)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // wake was called
			err = g.Device.File().SetReadDeadline(time.Time{})
			if err != nil {
				return 0, err
			}
		case err != nil:
			return n, err
		case !g.keep(bufs[:n], sizes, offset):
			return n, nil
		}
	}
}

// inject has packets go into the tunnel as if they had come out of the Device, behind those that are held. It returns how many of them:
// the first for which there is no room ends it.
func (g *gate) inject(packets [][]byte) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for n < len(packets) && g.size+len(packets[n]) <= maxKept {
		g.kept = append(g.kept, packets[n])
		g.size += len(packets[n])
		n++
	}
	if !g.held {
		g.wake()
	}
	return n
}

// wake has the reader, which waits for the next packet, see what is kept. Where it cannot be woken, that packet will do it.
func (g *gate) wake() {
	if len(g.kept) > 0 {
		_ = g.Device.File().SetReadDeadline(time.Now())
	}
}

// keep takes what was read, unless it may pass at once.
func (g *gate) keep(bufs [][]byte, sizes []int, offset int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.held && len(g.kept) == 0 {
		return false
	}
	for i, b := range bufs {
		if g.size+sizes[i] <= maxKept {
			g.kept = append(g.kept, bytes.Clone(b[offset:offset+sizes[i]]))
			g.size += sizes[i]
		}
	}
	return true
}

// take fills bufs with what was kept, once it may pass.
func (g *gate) take(bufs [][]byte, sizes []int, offset int) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held {
		return 0
	}
	for n < min(len(bufs), len(g.kept)) {
		sizes[n] = copy(bufs[n][offset:], g.kept[n])
		g.size -= len(g.kept[n])
		n++
	}
	if g.kept = g.kept[n:]; len(g.kept) == 0 {
		g.kept = nil
	}
	return n
}

// hold begins or prolongs holding, for at most d. A packet that Read has returned already is not held.
func (g *gate) hold(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held {
		g.lease.Stop()
	}
	g.held = true
	g.lease = time.AfterFunc(d, g.release)
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.held {
		return
	}
	g.lease.Stop()
	g.held = false
	g.wake()
}
