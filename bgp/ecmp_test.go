package bgp_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// sink counts numbered packets that arrive anywhere.
type sink struct {
	mu      sync.Mutex
	arrived map[uint32]string // where
}

func (k *sink) listen(t *testing.T, ns *nstest.NS, name string) {
	t.Helper()
	var conn net.PacketConn
	ns.Do(t, func() (err error) {
		conn, err = net.ListenPacket("udp", "192.0.2.1:9000")
		return err
	})
	nstest.Roomy(t, conn.(*net.UDPConn))
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if n == 4 {
				k.mu.Lock()
				k.arrived[binary.BigEndian.Uint32(b)] = name
				k.mu.Unlock()
			}
		}
	}()
}

// count says how many of the packets from number first on, below end, arrived where.
func (k *sink) count(first, end uint32) map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]int{}
	for n := first; n < end; n++ {
		if at := k.arrived[n]; at != "" {
			out[at]++
		}
	}
	return out
}

// missing says how many of these packets are still on their way after ten seconds.
func (k *sink) missing(first, end uint32) (n int) {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		got := k.count(first, end)
		if n = int(end-first) - got["a"] - got["b"]; n == 0 || time.Since(begin) > 10*time.Second {
			return n
		}
	}
}

// machineDrops counts the packets that found no room on their way through the machine (netdev_max_backlog), of all namespaces. A veth's wait there.
func machineDrops(t *testing.T) (n uint64) {
	t.Helper()
	data, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) { // of each processor: processed, dropped, and more
		dropped, err := strconv.ParseUint(strings.Fields(line)[1], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		n += dropped
	}
	return n
}

// flows are sockets that send numbered packets in turn, so that both next hops have some.
type flows struct {
	conns []net.Conn
	next  atomic.Uint32 // number
}

func openFlows(t *testing.T, ns *nstest.NS, n int) *flows {
	t.Helper()
	f := &flows{}
	for i := range n {
		ns.Do(t, func() error {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(203, 0, 113, 1), Port: 10000 + i}, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9000})
			if err == nil {
				f.conns = append(f.conns, c)
				t.Cleanup(func() { _ = c.Close() })
			}
			return err
		})
	}
	return f
}

// send is one packet. What cannot be sent is lost like what does not arrive.
func (f *flows) send() {
	n := f.next.Add(1) - 1
	_, _ = f.conns[int(n)%len(f.conns)].Write(binary.BigEndian.AppendUint32(nil, n))
}

// run sends a packet every millisecond until the caller is done.
func (f *flows) run() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-quit:
				tick.Stop()
				return
			case <-tick.C:
				f.send()
			}
		}
	}()
	return func() { close(quit); <-done }
}

// anycast is a site of two ToRs with the same address behind them, which packets of the gateway's find by the routes that are learned.
// The second BIRD announces another prefix, too.
func anycast(t *testing.T) (*site, *sink, *nstest.Bird, bgp.State) {
	t.Helper()
	s := newSite(t, 2)
	k := &sink{arrived: map[uint32]string{}}
	for i, name := range []string{"a", "b"} {
		tor := s.tors[i]
		tor.Up(t, "lo")
		tor.Address(t, "lo", "192.0.2.1/32")
		tor.Do(t, func() error {
			_, back, _ := net.ParseCIDR("203.0.113.0/24")
			return tor.RouteAdd(route(back, fmt.Sprintf("198.18.%d.2", i))) // for the reverse path check
		})
		k.listen(t, tor, name)
	}
	s.gw.Up(t, "lo")
	s.gw.Address(t, "lo", "203.0.113.1/32")
	s.gw.Do(t, func() error { // by ports as well
		return os.WriteFile("/proc/sys/net/ipv4/fib_multipath_hash_policy", []byte("1"), 0o600)
	})
	s.tor(t, 0, "", "192.0.2.1/32")
	b := s.tor(t, 1, "", "192.0.2.1/32", "198.51.100.0/24")
	state := gateway(2)
	state.Learn = everything()
	for i := range state.Neighbors {
		state.Neighbors[i].FallOver = true
	}
	return s, k, b, state
}

// bothWays is what the kernel has while both ToRs are there.
const bothWays = "192.0.2.1/32 198.18.0.1 198.18.1.1\n198.51.100.0/24 198.18.1.1\n"

// both waits until each ToR has got some of the packets from number first on.
func (k *sink) both(t *testing.T, f *flows, first uint32) {
	t.Helper()
	nstest.Eventually(t, 10*time.Second, func() string {
		got := k.count(first, f.next.Load())
		return nstest.Want("both have some", []bool{got["a"] > 100, got["b"] > 100}, []bool{true, true})
	})
}

// onlyB sends a packet of each flow, all of which must arrive at the second ToR. A burst of which the machine itself may have dropped some
// is sent again.
func (k *sink) onlyB(t *testing.T, f *flows) {
	t.Helper()
	for range 3 {
		first, dropped := f.next.Load(), machineDrops(t)
		for range f.conns {
			f.send()
		}
		lost := k.missing(first, f.next.Load())
		got := k.count(first, f.next.Load())
		if lost == 0 && got["a"] == 0 {
			return
		}
		now := machineDrops(t)
		if got["a"] > 0 || now == dropped {
			t.Fatalf("arrived since the routes moved: %v of %d", got, len(f.conns))
		}
		t.Logf("%d of %d packets were lost, while the machine dropped %d of all that were on any link", lost, len(f.conns), now-dropped)
	}
	t.Fatal("the machine dropped packets each time")
}

// Two ToRs have the same address behind them. One dies: what was on its way is lost, and nothing after that.
func TestOneOfTwoToRsDies(t *testing.T) {
	s, k, b, state := anycast(t)
	gw := s.gw.Child(t, fresh)
	apply(t, gw, state)
	s.installs(t, bothWays)

	f := openFlows(t, s.gw, 64)
	stop := f.run()
	k.both(t, f, 0)
	died, begin := f.next.Load(), time.Now()
	s.carrier(t, 0, false)
	s.until(t, "192.0.2.1/32 198.18.1.1\n198.51.100.0/24 198.18.1.1\n")
	took, moved := time.Since(begin), f.next.Load()
	stop()
	end := f.next.Load()
	// The kernel is the first to take the hop out, but sockets remember it until the speaker did so as well.
	shows(t, gw, []bgp.RouteStatus{
		{Prefix: path("192.0.2.1/32").Prefix, NextHops: addrs("198.18.1.1"), Metric: 20},
		{Prefix: path("198.51.100.0/24").Prefix, NextHops: addrs("198.18.1.1"), Metric: 20},
	})
	for range 10 { // so many at a time find room in a socket
		k.onlyB(t, f)
	}
	lost := int(end)
	for _, n := range k.count(0, end) {
		lost -= n
	}
	t.Logf("a ToR died: the routes moved after %v; of %d packets sent meanwhile, one a millisecond, %d were lost", took, moved-died, lost)

	withdrawn := time.Now()
	b.Configure(t, torConfig(1, "198.18.1.1", "198.18.1.2", "", "192.0.2.1/32"))
	s.until(t, "192.0.2.1/32 198.18.1.1\n")
	t.Logf("from a route's removal at the neighbor to the kernel without it: %v", time.Since(withdrawn))
}

// The speaker is killed and comes back while packets go to both: its successor takes over next hop groups and routes as they are.
func TestARestartBetweenTwoToRsLosesNoPacket(t *testing.T) {
	s, k, _, state := anycast(t)
	gw := s.gw.Child(t, fresh)
	apply(t, gw, state)
	s.installs(t, bothWays)
	f := openFlows(t, s.gw, 64)
	for range 3 {
		first, dropped := f.next.Load(), machineDrops(t)
		gw = restartUnderTraffic(t, s, k, f, gw, state)
		end := f.next.Load()
		lost := k.missing(first, end)
		s.installs(t, bothWays)
		if lost == 0 {
			t.Logf("none of %d packets, one a millisecond, was lost over three restarts", end-first)
			return
		}
		now := machineDrops(t)
		if now == dropped {
			t.Fatalf("%d of %d packets were lost", lost, end-first)
		}
		t.Logf("%d of %d packets were lost, while the machine dropped %d of all that were on any link", lost, end-first, now-dropped)
	}
	t.Error("the machine dropped packets each time")
}

// restartUnderTraffic kills and restarts the speaker three times while packets go to both.
func restartUnderTraffic(t *testing.T, s *site, k *sink, f *flows, gw *nstest.Child, state bgp.State) *nstest.Child {
	t.Helper()
	stop := f.run()
	defer stop()
	k.both(t, f, f.next.Load())
	for range 3 {
		gw.Kill()
		killed := f.next.Load()
		k.both(t, f, killed)
		gw = s.gw.Child(t, restarted)
		apply(t, gw, state)
		established(t, gw, "tor-a", "tor-b")
		shows(t, gw, []bgp.RouteStatus{ // learned again, and none is stale
			{Prefix: path("192.0.2.1/32").Prefix, NextHops: addrs("198.18.0.1", "198.18.1.1"), Metric: 20},
			{Prefix: path("198.51.100.0/24").Prefix, NextHops: addrs("198.18.1.1"), Metric: 20},
		})
		k.both(t, f, f.next.Load())
	}
	return gw
}

// GoBGP tells of changes among the best paths of a prefix, not of all of them: one that becomes worse goes, one that becomes better takes the place of the others.
func TestPathsOfOnePrefixGetWorseAndBetter(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	config := func(i, prepended int) string {
		return strings.Replace(torConfig(i, fmt.Sprintf("198.18.%d.1", i), fmt.Sprintf("198.18.%d.2", i), "", "192.0.2.0/24"), "ipv4 { import all; export where source = RTS_STATIC; };",
			"ipv4 { import all; export filter { "+strings.Repeat("bgp_path.prepend(64999); ", prepended)+"if source = RTS_STATIC then accept; reject; }; };", 1)
	}
	birds := []*nstest.Bird{nstest.StartBird(t, s.tors[0], config(0, 1)), nstest.StartBird(t, s.tors[1], config(1, 1))}
	gw := s.gw.Child(t, fresh)
	state := gateway(2)
	state.Learn = everything()
	apply(t, gw, state)
	const a, b, both = "192.0.2.0/24 198.18.0.1\n", "192.0.2.0/24 198.18.1.1\n", "192.0.2.0/24 198.18.0.1 198.18.1.1\n"
	s.installs(t, both)
	for _, step := range []struct {
		tor, prepended int
		want           string
	}{{0, 2, b}, {0, 1, both}, {1, 0, b}, {0, 0, both}, {1, 2, a}, {0, 2, both}, {0, 0, a}} {
		birds[step.tor].Configure(t, config(step.tor, step.prepended))
		s.installs(t, step.want)
	}
	birds[0].Do(t, "disable static4")
	s.installs(t, b)
	birds[1].Do(t, "disable static4")
	s.installs(t, "")
}

// A filter that changes asks no neighbor, and a neighbor that asks (RFC 2918) is told everything again; the session stays.
func TestRoutesAreSentAgainWhenTheNeighborAsks(t *testing.T) {
	s := newSite(t, 1)
	bird := s.tor(t, 0, "", "192.0.2.0/24")
	gw := s.gw.Child(t, fresh)
	state := gateway(1, path("203.0.113.0/24"))
	state.Learn = everything()
	apply(t, gw, state)
	hears(t, bird, "203.0.113.0/24")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	since, sent := uptime(t, bird), status(t, gw).Sent.Update

	state.Learn.Reject = []bgp.Filter{{}}
	apply(t, gw, state)
	s.installs(t, "")
	state.Learn.Reject = nil
	apply(t, gw, state)
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	bird.Do(t, "reload in sluice")
	nstest.Eventually(t, 10*time.Second, func() string {
		st := status(t, gw)
		return nstest.Want("asked, and told", []bool{st.Received.RouteRefresh > 0, st.Sent.RouteRefresh > 0, st.Sent.Update > sent}, []bool{true, false, true})
	})
	hears(t, bird, "203.0.113.0/24")
	if now := uptime(t, bird); another(now, since) {
		t.Errorf("the session is of %s, and was of %s", now, since)
	}
}
