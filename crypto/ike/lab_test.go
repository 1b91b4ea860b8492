package ike

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/tests/nstest"

	"golang.org/x/sys/unix"
)

// space is a network namespace without a name. It ends with the test and the processes in it.
type space struct{ *nstest.NS }

func newSpace(t *testing.T) *space { return &space{nstest.New(t)} }

// connect makes a veth between s and other, up0 here and up1 there.
func (s *space) connect(t *testing.T, other *space) {
	t.Helper()
	nstest.Veth(t, s.NS, "up0", other.NS, "up1")
	s.Address(t, "up0", "198.18.0.1/24", "198.18.0.11/24", "2001:db8::1/64")
	other.Address(t, "up1", "198.18.0.2/24", "198.18.0.12/24", "2001:db8::2/64")
}

// marker is the payload whose bytes must never be seen outside a tunnel.
var marker = []byte("sluice-plaintext-marker-0123456789")

// serveEcho answers UDP on port 7, each address by a socket of its own, so that the answer comes from where was asked.
func (s *space) serveEcho(t *testing.T, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		var c net.PacketConn
		s.Do(t, func() (err error) {
			c, err = net.ListenPacket("udp", net.JoinHostPort(a, "7"))
			return err
		})
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				c.WriteTo(buf[:n], from)
			}
		}()
	}
}

// flow sends numbered datagrams without a pause and counts what comes back.
type flow struct {
	conn    net.Conn
	under   int // it pauses while more than so many are unanswered; 0: never
	stop    chan struct{}
	done    sync.WaitGroup
	mu      sync.Mutex
	sent    uint32
	back    int
	arrived []bool
}

const pace = 2 * time.Millisecond

func (s *space) flow(t *testing.T, from, to string) *flow {
	t.Helper()
	return s.flowUnder(t, from, to, 0)
}

// sparing is a flow of which nothing may be lost: while the machine stands still, it fills no queue until that overflows.
func (s *space) sparing(t *testing.T, from, to string) *flow {
	t.Helper()
	return s.flowUnder(t, from, to, 100)
}

func (s *space) flowUnder(t *testing.T, from, to string, under int) *flow {
	t.Helper()
	f := &flow{under: under, stop: make(chan struct{})}
	s.Do(t, func() (err error) {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
		f.conn, err = d.Dial("udp", net.JoinHostPort(to, "7"))
		return err
	})
	f.done.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
			}
			f.mu.Lock()
			if f.under > 0 && int(f.sent)-f.back > f.under {
				f.mu.Unlock()
				continue
			}
			f.sent++
			n := f.sent
			f.arrived = append(f.arrived, false)
			f.mu.Unlock()
			// A refusal (no route, no SA) is a packet that does not come back.
			f.conn.Write(binary.BigEndian.AppendUint32(slices.Clone(marker), n))
		}
	})
	go func() {
		buf := make([]byte, 2048)
		for {
			n, err := f.conn.Read(buf)
			if err != nil {
				if ne, ok := err.(net.Error); ok && !ne.Timeout() && isClosed(err) {
					return
				}
				continue
			}
			if n == len(marker)+4 && bytes.HasPrefix(buf, marker) {
				f.mu.Lock()
				if one := &f.arrived[binary.BigEndian.Uint32(buf[len(marker):])-1]; !*one {
					*one = true
					f.back++
				}
				f.mu.Unlock()
			}
		}
	}()
	return f
}

// count returns how many were sent so far and how many of them have not come back.
func (f *flow) count() (sent, lost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(f.sent), int(f.sent) - f.back
}

// more waits until n further datagrams were sent.
func (f *flow) more(t *testing.T, n int) {
	t.Helper()
	begin, _ := f.count()
	until(t, fmt.Sprintf("%d more datagrams are sent", n), func() bool { sent, _ := f.count(); return sent >= begin+n })
}

// answered waits until n further datagrams have come back.
func (f *flow) answered(t *testing.T, n int) {
	t.Helper()
	sent, lost := f.count()
	begin := sent - lost
	until(t, fmt.Sprintf("%d more datagrams are answered", n), func() bool { sent, lost := f.count(); return sent-lost >= begin+n })
}

// finish ends the sending and returns the numbers of what is lost, once nothing has come for five seconds.
func (f *flow) finish(t *testing.T) (sent, lost int) {
	t.Helper()
	close(f.stop)
	f.done.Wait()
	sent, lost = f.count()
	for quiet := 0; lost > 0 && quiet < 500; quiet++ {
		time.Sleep(10 * time.Millisecond)
		before := lost
		if _, lost = f.count(); lost != before {
			quiet = 0
		}
	}
	f.conn.Close()
	return sent, lost
}

func isClosed(err error) bool {
	return err != nil && bytes.Contains([]byte(err.Error()), []byte("closed"))
}

// answers waits until a datagram comes back.
func (s *space) answers(t *testing.T, from, to string) {
	t.Helper()
	f := s.flow(t, from, to)
	until(t, to+" answers", func() bool { sent, lost := f.count(); return sent > lost })
	close(f.stop)
	f.done.Wait()
	f.conn.Close()
}

// capture counts frames on a link, in both directions.
type capture struct {
	*nstest.Sniffer
	mu       sync.Mutex
	clear    int // frames that hold the marker
	wrapped  int // ESP in UDP 4500
	straight int // ESP itself
}

func (s *space) capture(t *testing.T, name string) *capture {
	t.Helper()
	c := &capture{}
	c.Sniffer = nstest.Sniff(t, s.Do, name, c.count)
	return c
}

func (c *capture) count(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Contains(frame, marker) {
		c.clear++
	}
	protocol, rest := byte(0), []byte(nil)
	switch {
	case len(frame) > 14+20 && frame[12] == 8 && frame[13] == 0: // IPv4 without options
		protocol, rest = frame[23], frame[34:]
	case len(frame) > 14+40 && frame[12] == 0x86 && frame[13] == 0xdd:
		protocol, rest = frame[20], frame[54:]
	}
	// RFC 3948 section 2.2: what follows the UDP header is ESP unless it is four zero bytes, or one byte to keep a NAT awake.
	if protocol == unix.IPPROTO_UDP && len(rest) > 12 && binary.BigEndian.Uint16(rest[2:]) == portNATT && binary.BigEndian.Uint32(rest[8:]) != 0 {
		c.wrapped++
	}
	if protocol == unix.IPPROTO_ESP {
		c.straight++
	}
}

func (c *capture) seen(t *testing.T) (clear, wrapped, straight int) {
	t.Helper()
	c.Complete(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clear, c.wrapped, c.straight
}

// endurance bounds what a test waits for; the VM is slow.
const endurance = 60 * time.Second

// until polls for at most so long.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(endurance)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", endurance, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, p := range list {
		out[i] = netip.MustParsePrefix(p)
	}
	return out
}
