//go:build vmguest

package guest

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/control/host"
)

const (
	mbps = 1_000_000
	// A full frame of TCP over IPv4 with timestamps, and what of it the receiver sees.
	frameBytes, payloadBytes = 1514, 1448
)

// flow is one sender's bytes, as they arrive outside.
type flow struct {
	received atomic.Int64
	conn     net.Conn
}

// sends sends over TCP as fast as it goes, until the test ends.
func (s *pacedSite) sends(t *testing.T, from *node, port int) *flow {
	t.Helper()
	at := net.JoinHostPort(outside4, fmt.Sprint(port))
	var l net.Listener
	s.outside.do(t, func() (err error) { l, err = net.Listen("tcp4", at); return err })
	t.Cleanup(func() { l.Close() })
	f := &flow{}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
		buf := make([]byte, 1<<16)
		for {
			n, err := conn.Read(buf)
			f.received.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	from.do(t, func() (err error) { f.conn, err = net.Dial("tcp4", at); return err })
	t.Cleanup(func() {
		f.conn.(*net.TCPConn).SetLinger(0) // or the kernel would go on with what it has
		f.conn.Close()
	})
	go io.Copy(f.conn, endless{})
	return f
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// blast sends datagrams from so many sockets, which never wait for room, until the test ends.
func (s *pacedSite) blast(t *testing.T, from *node, sockets int) *flow {
	t.Helper()
	at := net.JoinHostPort(outside4, "9000")
	f := &flow{}
	var sink net.PacketConn
	s.outside.do(t, func() (err error) { sink, err = net.ListenPacket("udp4", at); return err })
	t.Cleanup(func() { sink.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := sink.ReadFrom(buf)
			if err != nil {
				return
			}
			f.received.Add(int64(n))
		}
	}()
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	for range sockets {
		var conn net.Conn
		from.do(t, func() (err error) { conn, err = net.Dial("udp4", at); return err })
		t.Cleanup(func() { conn.Close() })
		go func() {
			packet := make([]byte, 1472)
			// Together four times the rate of the test: the one CPU is emulated, and others need it too.
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				for range 8 / sockets {
					conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
					conn.Write(packet)
				}
			}
		}()
	}
	return f
}

// over measures what arrives of each flow in a while, in bits per second of its payload.
func over(d time.Duration, flows ...*flow) []float64 {
	began, before := time.Now(), make([]int64, len(flows))
	for i, f := range flows {
		before[i] = f.received.Load()
	}
	<-time.After(d)
	out, took := make([]float64, len(flows)), time.Since(began).Seconds()
	for i, f := range flows {
		out[i] = float64(f.received.Load()-before[i]) * 8 / took
	}
	return out
}

func sum(list []float64) (n float64) {
	for _, v := range list {
		n += v
	}
	return n
}

// within fails unless what arrives of TCP is the rate less the headers, give or take 5 %.
func within(t *testing.T, what string, payload, rate float64) {
	t.Helper()
	got := payload * frameBytes / payloadBytes / rate
	t.Logf("%s: %.3f of the rate", what, got)
	if got < 0.95 || got > 1.05 {
		t.Errorf("%s: %.3f of the rate arrives, want 0.95 to 1.05", what, got)
	}
}

func retransmits(t *testing.T, c net.Conn) (n uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		info, e := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if e != nil {
			t.Error(e)
			return
		}
		n = info.Total_retrans
	})
	return n
}

// TestPacedWorkloads is one site for all: on an emulated machine the verifier takes half a minute for it.
func TestPacedWorkloads(t *testing.T) {
	const rate = 5 * mbps
	s := newPacedSite(t, rate)
	if got := s.qdiscs(t, "up0"); got != "mq fq5000 fq5000 fq5000 fq5000" {
		t.Fatalf("the uplink has %q", got)
	}
	s.outside.serveEcho(t, outside4)
	s.workload.answers(t, outside4) // the neighbours are resolved
	s.lan.answers(t, outside4)
	t.Run("one TCP flow has the rate and loses nothing", func(t *testing.T) { s.oneFlow(t, rate) })
	t.Run("four TCP flows share it", func(t *testing.T) { s.fourFlows(t, rate) })
	t.Run("beside a blaster of a workload, whose sockets wait", func(t *testing.T) { s.besideABlaster(t, s.workload, "wl1", rate, 0.75) })
	// A blaster sends when its clock ticks, and what it misses is lost to the rate: that TCP has all of it is seen above.
	t.Run("beside a blaster of a LAN, whose packets nobody holds", func(t *testing.T) { s.besideABlaster(t, s.lan, "lan", rate, 0.75) })

	s.box.do(t, func() error { return s.host.Down(context.Background()) })
	if got := s.qdiscs(t, "up0"); got != "noqueue" {
		t.Errorf("after down the uplink has %q", got)
	}
	t.Run("fq at the root", func(t *testing.T) { s.atTheRoot(t, rate) })
}

func (s *pacedSite) oneFlow(t *testing.T, rate float64) {
	f := s.sends(t, s.workload, 5001)
	over(time.Second, f)
	within(t, "one TCP flow of a workload", over(3*time.Second, f)[0], rate)
	if p, n := s.pacing(t, "wl1"), retransmits(t, f.conn); p.Dropped != 0 || n != 0 {
		t.Errorf("%d packets were dropped, %d sent again: %+v", p.Dropped, n, p)
	}
	// What the stack forwards has no socket any more that would wait: there ECN or a loss tells TCP.
	lan := s.sends(t, s.lan, 5002)
	over(2*time.Second, lan)
	both := over(3*time.Second, f, lan)
	within(t, "a workload beside a LAN", both[0], rate)
	within(t, "a LAN beside a workload", both[1], rate)
}

func (s *pacedSite) fourFlows(t *testing.T, rate float64) {
	var flows []*flow
	for i := range 4 {
		flows = append(flows, s.sends(t, s.workload, 5001+i))
	}
	over(time.Second, flows...)
	got := over(10*time.Second, flows...) // each has some 18 buffers of 64 KB in this time
	t.Logf("four flows: %.0f", got)
	within(t, "four TCP flows", sum(got), rate)
	// A socket has one buffer in the queue or two (TCP small queues: twice the buffer's truesize), and departure times go by
	// arrival: a flow that keeps two has twice what a flow with one has. Mostly 0.66 to 0.72 is seen, 0.45 (15 buffers to 31)
	// once. Less than a third is not of that kind.
	if low := slices.Min(got) / slices.Max(got); low < 1./3 {
		t.Errorf("the slowest of four flows has %.2f of the fastest: %.0f", low, got)
	}
	if p := s.pacing(t, "wl1"); p.Dropped != 0 {
		t.Errorf("%d packets were dropped: %+v", p.Dropped, p)
	}
}

func (s *pacedSite) besideABlaster(t *testing.T, from *node, link string, rate, least float64) {
	const datagram = frameBytes / 1472.
	idle := median(s.pings(t, from, 20))
	blaster := s.blast(t, from, 2)
	t.Logf("the first second of the blaster: %.3f of the rate", over(time.Second, blaster)[0]*datagram/rate)
	alone := over(2*time.Second, blaster)[0] * datagram / rate
	var backlog time.Duration
	for end := time.Now().Add(time.Second); backlog < 20*time.Millisecond && time.Now().Before(end); time.Sleep(time.Millisecond) {
		backlog = max(backlog, s.pacing(t, link).Backlog) // comes and goes with what the blaster sends at once
	}
	busy := median(s.pings(t, from, 50))
	t.Logf("the blaster alone has %.3f of the rate, backlog %s; a ping takes %s, without it %s", alone, backlog, busy, idle)
	if alone < least || alone > 1.05 {
		t.Errorf("the blaster has %.3f of the rate", alone)
	}
	if backlog < 20*time.Millisecond {
		t.Errorf("the backlog is only %s: the test shows nothing", backlog)
	}
	if busy > idle+10*time.Millisecond {
		t.Errorf("a ping beside the blaster takes %s, without it %s", busy, idle)
	}
	tcp := s.sends(t, from, 5001)
	over(time.Second, tcp)
	got := over(4*time.Second, tcp, blaster)
	share := got[0] * frameBytes / payloadBytes / rate
	total := share + got[1]*datagram/rate
	t.Logf("TCP beside two blasting sockets has %.3f of the rate, all of them %.3f", share, total)
	if share < 0.25 || total < least || total > 1.05 { // a third would be its share
		t.Errorf("TCP has %.3f of the rate, all together %.3f", share, total)
	}
}

// atTheRoot has an operator's own fq on the uplink, and a link with one queue beside it.
func (s *pacedSite) atTheRoot(t *testing.T, rate float64) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumTxQueues = "up1", 1
	if err := s.box.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "up1p"}); err != nil {
		t.Fatal(err)
	}
	s.box.setUp(t, "up1")
	up0, err := s.box.nl.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	own := netlink.NewFq(netlink.QdiscAttrs{LinkIndex: up0.Attrs().Index, Handle: netlink.MakeHandle(7, 0), Parent: netlink.HANDLE_ROOT})
	own.FlowPacketLimit = 777
	if err := s.box.nl.QdiscReplace(own); err != nil {
		t.Fatal(err)
	}
	check := func(when, up0, up1 string) {
		t.Helper()
		if got := s.qdiscs(t, "up0"); got != up0 {
			t.Errorf("%s up0 has %q, want %q", when, got, up0)
		}
		if got := s.qdiscs(t, "up1"); got != up1 {
			t.Errorf("%s up1 has %q, want %q", when, got, up1)
		}
	}
	s.box.do(t, func() error {
		return converge(s.host, host.State{Qdiscs: []host.Qdisc{{Link: "up0", FQ: true}, {Link: "up1", FQ: true}}})
	})
	check("with bandwidths", "fq777", "fq5000")
	f := s.sends(t, s.workload, 5001)
	over(time.Second, f)
	within(t, "one TCP flow of a workload", over(2*time.Second, f)[0], rate)
	s.box.do(t, func() error { return s.host.Down(context.Background()) })
	check("after down", "fq777", "noqueue")
}

// pings measures round trips of small datagrams, one every 10 ms.
func (s *pacedSite) pings(t *testing.T, from *node, count int) (took []time.Duration) {
	t.Helper()
	c := from.dial(t, outside4)
	defer c.Close()
	buf := make([]byte, 100)
	for range count {
		began := time.Now()
		c.Write(marker)
		c.SetReadDeadline(began.Add(time.Second))
		if _, err := c.Read(buf); err != nil {
			t.Fatalf("a ping was lost: %v", err)
		}
		took = append(took, time.Since(began))
		<-time.After(10 * time.Millisecond)
	}
	return took
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
