package netns

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/host"
	"sluice/tests/nstest"
)

// pacedRate is what web-1 may send, in bits per second of frames.
const pacedRate = 20_000_000

// sink counts the bytes that arrive at a port of the client: of datagrams, or of TCP connections.
func (s *site) sink(network string, port uint16) *atomic.Int64 {
	s.t.Helper()
	var received atomic.Int64
	count := func(r io.Reader) {
		buf := make([]byte, 1<<16)
		for {
			n, err := r.Read(buf)
			received.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	at := netip.AddrPortFrom(lab.Client4, port)
	err := s.Client.Do(func() error {
		if network == "udp" {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			if err == nil {
				nstest.Roomy(s.t, conn)
				s.t.Cleanup(func() { conn.Close() })
				go count(conn)
			}
			return err
		}
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err == nil {
			s.t.Cleanup(func() { l.Close() })
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go func() { count(conn); conn.Close() }()
				}
			}()
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return &received
}

// floods sends datagrams of 1,472 bytes at three times the rate until ctx ends; TCP as fast as it goes.
func (s *site) floods(ctx context.Context, network string, port uint16) {
	s.t.Helper()
	conn, err := s.Workload(1).Dial(ctx, network, netip.AddrPortFrom(lab.Client4, port).String())
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		<-ctx.Done()
		conn.Close()
	}()
	go func() {
		packet := make([]byte, 1472)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if network == "udp" {
				<-tick.C
				for range 10 {
					conn.Write(packet) // refused ones are the test's matter, not the sender's
				}
			} else if _, err := conn.Write(packet); err != nil {
				return
			}
		}
	}()
}

// rates are the bits per second that arrive in a while.
func rates(d time.Duration, of ...*atomic.Int64) []float64 {
	before := make([]int64, len(of))
	for i := range of {
		before[i] = of[i].Load()
	}
	began := time.Now()
	<-time.After(d)
	out := make([]float64, len(of))
	for i := range of {
		out[i] = float64(of[i].Load()-before[i]) * 8 / time.Since(began).Seconds()
	}
	return out
}

// windows measures until ok, five times at most: a sender that was held up or a reader's backlog moves what one window has, a wrong rate
// moves what all of them have.
func windows(d time.Duration, ok func(got []float64) bool, of ...*atomic.Int64) bool {
	for range 5 {
		if ok(rates(d, of...)) {
			return true
		}
	}
	return false
}

// echoesBack sends so many small datagrams from web-1 to a port of the client that sends them back, and counts what came until one did not.
func (s *site) echoesBack(count int) (back int) {
	s.t.Helper()
	var server *net.UDPConn
	err := s.Client.Do(func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(lab.Client4, 7007)))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	defer server.Close()
	nstest.Roomy(s.t, server)
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(buf[:n], from)
		}
	}()
	conn, err := s.Workload(1).Dial(s.t.Context(), "udp", netip.AddrPortFrom(lab.Client4, 7007).String())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	for range count {
		conn.Write([]byte("ping"))
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 100)); err != nil {
			break
		}
		back++
	}
	return back
}

// TestABandwidthIsHeldAndSharedFairlyBetweenTheFlowsOfAWorkload takes the machine as it is: with fq or, as most machines of
// tests, without.
func TestABandwidthIsHeldAndSharedFairlyBetweenTheFlowsOfAWorkload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit("    addresses: [203.0.113.10, \"2001:db8:100::10\"]\n", "    addresses: [203.0.113.10, \"2001:db8:100::10\"]\n    bandwidth: {egress: 20Mbps}\n")
	s.write(strings.ReplaceAll(s.file, "egress: {default: drop, rules: [{name: dns", "egress: {default: accept, rules: [{name: dns"))
	s.start()
	s.established()
	var queues map[string]host.Queue
	if err := s.Gateway.Namespace.Do(func() (err error) {
		queues, err = host.QueuesOf(t.Context(), []string{"eth0"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	lacks := queues["eth0"].NoFQ != ""
	for _, command := range []string{"check", "plan"} {
		said := s.sluice(command, "-c", s.Gateway.File)
		if got := strings.Contains(said.out+said.err, "bandwidth.egress is held there by dropping what is faster"); said.code != 0 || got != lacks {
			t.Errorf("the kernel lacks fq: %v; sluice %s says (%d)\n%s%s", lacks, command, said.code, said.out, said.err)
		}
	}
	if got := s.must(s.Gateway.Namespace, "tc qdisc show dev eth0"); strings.Contains(got, "qdisc fq ") == lacks {
		t.Errorf("the uplink has %q", got)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	datagrams, stream := s.sink("udp", 9000), s.sink("tcp", 9001)
	s.floods(ctx, "udp", 9000)
	rates(time.Second, datagrams)
	const frame = 1514. / 1472 // what is counted of what arrives
	var share float64
	alone := func(got []float64) bool {
		share = got[0] * frame / pacedRate
		return share >= 0.9 && share <= 1.05
	}
	if !windows(3*time.Second, alone, datagrams) {
		t.Errorf("one flow of datagrams has %.3f of the rate", share)
	}
	if dropped := s.packets("tc", "eth0", "paced-drop"); lacks && dropped == 0 {
		t.Error("nothing is counted as paced-drop")
	}
	if back := s.echoesBack(50); back != 50 {
		t.Errorf("beside it %d of 50 pings came back", back)
	}
	s.floods(ctx, "tcp", 9001)
	rates(time.Second, stream)
	var udp, tcp float64
	fair := func(both []float64) bool {
		udp, tcp = both[0]*frame/pacedRate, both[1]*(1514./1448)/pacedRate
		t.Logf("datagrams %.3f of the rate, TCP %.3f", udp, tcp)
		return tcp >= 0.25 && udp+tcp <= 1.05 && udp+tcp >= 0.85
	}
	if !windows(4*time.Second, fair, datagrams, stream) {
		t.Errorf("datagrams have %.3f of the rate, TCP %.3f", udp, tcp)
	}
	metrics, err := s.scrape()
	if err != nil {
		t.Fatal(err)
	}
	if got := metrics[`sluice_bandwidth_bps{interface="web-1"}`]; got != pacedRate {
		t.Errorf("the metrics say %v bit/s", got)
	}
	if got := metrics[`sluice_bandwidth_drops_total{interface="web-1"}`]; (got > 0) != lacks {
		t.Errorf("the metrics say that %v packets were dropped", got)
	}
	stop()

	// Without a bandwidth nothing is left of it.
	s.edit("    bandwidth: {egress: 20Mbps}\n", "")
	s.apply()
	if got := s.must(s.Gateway.Namespace, "tc qdisc show dev eth0"); !strings.Contains(got, "noqueue") {
		t.Errorf("without a bandwidth the uplink has %q", got)
	}
}
