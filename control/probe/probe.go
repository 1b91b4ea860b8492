// Package probe asks whether an address answers: ICMP echo over a raw socket.
package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrSilent says that no answer came before the context or the prober's own time ran out.
var ErrSilent = errors.New("no answer to ICMP echo")

// Options of a Prober. A zero field takes its default.
type Options struct {
	Interval time.Duration // between two requests, 200 ms
	Timeout  time.Duration // of one Reach whose context has no earlier deadline, 3 s
}

// Prober sends ICMP echo requests. It holds no socket between calls and is safe for concurrent use.
type Prober struct {
	o  Options
	id [2]byte // of all its requests: a new one for each call would be a new flow, for us and every firewall on the way
}

// New makes a Prober.
func New(o Options) *Prober {
	if o.Interval <= 0 {
		o.Interval = 200 * time.Millisecond
	}
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	p := &Prober{o: o}
	rand.Read(p.id[:])
	return p
}

// ICMP types (RFC 792, RFC 4443).
const (
	echoReply4, echoRequest4 = 0, 8
	echoRequest6, echoReply6 = 128, 129
)

// headerLen is type, code, checksum, identifier and sequence number; nonceLen random bytes follow as data.
const (
	headerLen = 8
	nonceLen  = 16
)

// Reach sends echo requests to addr, one each interval, until one is answered, and returns the round trip of that one.
// It needs CAP_NET_RAW and works in the calling thread's network namespace. Errors wrap ErrSilent where nothing
// answered in time, context.Canceled where the caller gave up, or the socket's error (no route, say).
func (p *Prober) Reach(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	if !addr.IsValid() {
		return 0, errors.New("probe: no address given")
	}
	addr = addr.Unmap()
	limited, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	network := "ip4:1"
	if addr.Is6() {
		network = "ip6:58"
	}
	x := p.exchange(addr)
	rtt, err := x.run(limited, network, addr, p.o.Interval)
	switch {
	case err == nil:
		return rtt, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return 0, fmt.Errorf("probe %s: %w", addr, ctx.Err())
	case limited.Err() != nil:
		return 0, fmt.Errorf("probe %s: %w to %d requests", addr, ErrSilent, len(x.sent))
	case errors.Is(err, os.ErrPermission):
		return 0, fmt.Errorf("probe %s: ICMP needs CAP_NET_RAW, run as root: %w", addr, err)
	}
	return 0, fmt.Errorf("probe %s: %w", addr, err)
}

func (p *Prober) exchange(addr netip.Addr) exchange {
	x := exchange{v6: addr.Is6(), id: p.id}
	rand.Read(x.nonce[:])
	return x
}

// exchange is one Reach: its nonce tells its replies from those of every other.
type exchange struct {
	v6    bool
	id    [2]byte
	nonce [nonceLen]byte
	sent  []time.Time // by sequence number
}

func (x *exchange) run(ctx context.Context, network string, addr netip.Addr, interval time.Duration) (time.Duration, error) {
	// A connected raw socket hears its peer alone.
	c, err := new(net.Dialer).DialContext(ctx, network, addr.String())
	if err != nil {
		return 0, err
	}
	conn := c.(*net.IPConn)
	defer conn.Close()
	// The end of the context wakes the reader.
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		request := x.request(uint16(len(x.sent)))
		x.sent = append(x.sent, time.Now())
		if _, err := conn.Write(request); err != nil && !errors.Is(err, unix.EHOSTUNREACH) {
			return 0, err
		}
		conn.SetReadDeadline(time.Now().Add(interval))
		// Looked at after setting: the deadline just set may have overwritten the one that ends the context.
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		rtt, err := x.await(conn)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return rtt, err
		}
	}
}

// await reads until a reply of ours or the deadline comes. EHOSTUNREACH is how the kernel tells a socket that neighbor
// resolution failed, seconds ago: the neighbor may be on its way up, so it counts as silence.
func (x *exchange) await(conn *net.IPConn) (time.Duration, error) {
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFromIP(buf) // without the IPv4 header
		if errors.Is(err, unix.EHOSTUNREACH) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if seq, ok := x.answers(buf[:n]); ok {
			return time.Since(x.sent[seq]), nil
		}
	}
}

// request builds an echo request. The kernel fills in the ICMPv6 checksum, which covers the addresses (RFC 3542).
func (x *exchange) request(seq uint16) []byte {
	m := make([]byte, headerLen, headerLen+nonceLen)
	m[0] = echoRequest4
	if x.v6 {
		m[0] = echoRequest6
	}
	copy(m[4:6], x.id[:])
	binary.BigEndian.PutUint16(m[6:], seq)
	m = append(m, x.nonce[:]...)
	if !x.v6 {
		binary.BigEndian.PutUint16(m[2:], checksum(m))
	}
	return m
}

// answers says whether the message is a reply to one of our requests, and to which.
func (x *exchange) answers(m []byte) (seq int, ok bool) {
	reply := byte(echoReply4)
	if x.v6 {
		reply = echoReply6
	}
	if len(m) != headerLen+nonceLen || m[0] != reply || m[1] != 0 || !bytes.Equal(m[headerLen:], x.nonce[:]) {
		return 0, false
	}
	seq = int(binary.BigEndian.Uint16(m[6:]))
	return seq, seq < len(x.sent)
}

// checksum is the Internet checksum (RFC 1071) of a message of even length.
func checksum(m []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
