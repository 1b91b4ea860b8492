package progrun_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/asavie/xdp"
	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	sluice "sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/xsk"
)

const xdpRedirect = 4

// bypasser is what an external kernel-bypass program does: an AF_XDP socket that it registers where Sluice says.
type bypasser struct {
	*xdp.Socket
	door *ebpf.Map
}

// bind makes a socket on queue 0 with room for as many frames, and registers it for a queue.
func (s *site) bind(t *testing.T, path string, frames int, queue uint32) *bypasser {
	t.Helper()
	return s.bindRing(t, path, frames, 64, queue)
}

// bindRing is bind with a receive ring of so many frames.
func (s *site) bindRing(t *testing.T, path string, frames, ring int, queue uint32) *bypasser {
	t.Helper()
	socket, err := xdp.NewSocket(s.uplink, 0, &xdp.SocketOptions{NumFrames: 64, FrameSize: 2048,
		FillRingNumDescs: 64, CompletionRingNumDescs: 64, RxRingNumDescs: ring, TxRingNumDescs: 64})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	door, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { door.Close() })
	if err := door.Put(queue, uint32(socket.FD())); err != nil {
		t.Fatal(err)
	}
	socket.Fill(socket.GetDescs(frames))
	return &bypasser{socket, door}
}

// receive returns the frames that arrive until there are n, at most in five seconds.
func (c *bypasser) receive(t *testing.T, n int) [][]byte {
	t.Helper()
	var out [][]byte
	for deadline := time.Now().Add(5 * time.Second); len(out) < n && time.Now().Before(deadline); {
		received, _, err := c.Poll(100)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range c.Receive(received) {
			out = append(out, bytes.Clone(c.GetFrame(d)))
		}
	}
	return out
}

func bypassGeneration(sockets ...xsk.Socket) sluice.Generation {
	g := generation(classify.Drop, classify.Rule{ID: 7, To: prefixes("203.0.113.9/32"), Protocol: 17,
		Ports: []classify.PortRange{{First: 53, Last: 53}}, Action: classify.Bypass, Argument: xsk.ID("dns")})
	g.Sockets = sockets
	return g
}

func (s *site) path(t *testing.T) string {
	t.Helper()
	sockets, err := s.Sockets(t.Context())
	if err != nil || len(sockets) != 1 || sockets[0].Name != "dns" || sockets[0].Interface != "uplink" || !sockets[0].Counted {
		t.Fatalf("sockets %+v: %v", sockets, err)
	}
	return sockets[0].Path
}

// registeredIs holds who is registered against what is wanted.
func (s *site) registeredIs(t *testing.T, want ...uint32) {
	t.Helper()
	sockets, err := s.Sockets(t.Context())
	if err != nil || len(sockets) != 1 {
		t.Fatalf("sockets %+v: %v", sockets, err)
	}
	if got, err := s.Registered(t.Context(), sockets[0]); err != nil || !slices.Equal(got, want) {
		t.Errorf("registered for queues %v, want %v: %v", got, want, err)
	}
}

// reason is how often a reason was given on the uplink.
func (s *site) reason(t *testing.T, r abi.Reason) uint64 {
	t.Helper()
	counters, err := s.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var sum uint64
	for _, i := range counters.Interfaces {
		if i.Name == "uplink" {
			sum += i.Reasons[r].Packets
		}
	}
	return sum
}

func TestBypassHandsPacketsToTheRegisteredSocket(t *testing.T) {
	dns := xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}}
	s := newSite(t, bypassGeneration(dns))
	query := dnsQuery()
	tor := ifindex(t, "tor")
	send := func(n uint32) {
		t.Helper()
		if err := sendFrames(tor, query, n); err != nil {
			t.Fatal(err)
		}
	}

	s.registeredIs(t)
	send(3)
	s.awaitCounters(t, 3)
	if got := s.reason(t, abi.ReasonBypassStack); got != 3 {
		t.Fatalf("with nobody registered %d of 3 packets went to the kernel", got)
	}

	c := s.bind(t, s.path(t), 64, 0)
	s.registeredIs(t, 0)
	for _, queue := range []uint32{7, abi.SocketQueues - 1} { // one socket may be registered for several
		if err := c.door.Put(queue, uint32(c.FD())); err != nil {
			t.Fatal(err)
		}
	}
	s.registeredIs(t, 0, 7, abi.SocketQueues-1)
	send(5)
	got := c.receive(t, 5)
	if len(got) != 5 || !slices.ContainsFunc(got, func(f []byte) bool { return bytes.Equal(f, query) }) {
		t.Fatalf("%d of 5 frames arrived: %x", len(got), got)
	}
	if said := s.explain(t, s.uplink, query); said.Fate != xdpRedirect || said.Reason != uint32(abi.ReasonBypass) || said.Rule != 7 {
		t.Errorf("the twin says %+v", said)
	}

	// Another generation, by a daemon that was started anew: the program notices nothing.
	s.Subsystem = sluice.New(quiet(), sluice.Options{BPFDir: s.dir})
	next := bypassGeneration(dns)
	next.Ingress.Rules[0].Name = "renamed"
	s.load(t, next)
	send(4)
	if got := c.receive(t, 4); len(got) != 4 {
		t.Errorf("after a swap %d of 4 frames arrived", len(got))
	}
	if got := s.reason(t, abi.ReasonBypass); got != 9 {
		t.Errorf("%d packets were handed over, not 9", got)
	}
}

// TestAFilterHandsPacketsToTheRegisteredSocket: where nobody has registered the policy judges them, and here drops.
func TestAFilterHandsPacketsToTheRegisteredSocket(t *testing.T) {
	g := generation(classify.Drop)
	g.Sockets = []xsk.Socket{{Name: "dns", Interfaces: []string{"uplink"}}}
	s := newSite(t, g)
	f := s.flowspec(t)
	redirects := matching("redirects", toward("203.0.113.9/32"))
	redirects.Drop, redirects.Socket = false, "dns"
	apply(t, f, redirects)
	query := dnsQuery()
	send := func(n uint32) {
		t.Helper()
		if err := sendFrames(ifindex(t, "tor"), query, n); err != nil {
			t.Fatal(err)
		}
	}
	send(3)
	s.awaitCounters(t, 3)
	if got := s.reason(t, abi.ReasonDefaultDrop); got != 3 {
		t.Fatalf("with nobody registered %d of 3 packets were dropped by the policy", got)
	}
	c := s.bind(t, s.path(t), 64, 0)
	send(5)
	if got := c.receive(t, 5); len(got) != 5 || !slices.ContainsFunc(got, func(f []byte) bool { return bytes.Equal(f, query) }) {
		t.Fatalf("%d of 5 frames arrived: %x", len(got), got)
	}
	if got := s.reason(t, abi.ReasonFlowspecBypass); got != 5 {
		t.Errorf("%d of 5 packets count as handed over", got)
	}
	if said := s.explain(t, s.uplink, query); said.Fate != xdpRedirect || said.Reason != uint32(abi.ReasonFlowspecBypass) || f.Key(said.Rule) != "redirects" {
		t.Errorf("the twin says %+v", said)
	}
	if hits, err := f.Hits("redirects"); err != nil || hits.Packets != 8 || hits.Dropped != 0 {
		t.Errorf("the filter counts %+v (%v), want 8 packets, and none of them dropped", hits, err)
	}
	redirects.GoesOn = true
	apply(t, f, redirects, matching("everything"))
	s.check(t, "a filter behind it drops", query, abi.ReasonFlowspecDrop)
}

func TestASocketThatTheFileDropsIsTakenAway(t *testing.T) {
	s := newSite(t, bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}}, xsk.Socket{Name: "app.1", Interfaces: []string{"uplink", "absent"}}))
	sockets, err := s.Sockets(t.Context())
	if err != nil || len(sockets) != 2 || sockets[0].Name != "app.1" { // none on an interface that is not there
		t.Fatalf("sockets %+v: %v", sockets, err)
	}
	gone := sockets[0].Path
	if doors, counters := s.doors(t); doors != 2 || counters != 2 {
		t.Errorf("programs know %d doors and count for %d, not 2", doors, counters)
	}
	s.load(t, bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}}))
	s.path(t)
	if _, err := os.Stat(gone); !os.IsNotExist(err) {
		t.Errorf("the pin of the removed socket: %v", err)
	}
	if doors, counters := s.doors(t); doors != 1 || counters != 1 {
		t.Errorf("programs know %d doors and count for %d, not 1", doors, counters)
	}
	if err := s.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("down left %s", s.dir)
	}
}

// doors are how many entries the map of sockets has, and that of their losses.
func (s *site) doors(t *testing.T) (doors, counters int) {
	t.Helper()
	var (
		key    abi.SocketKey
		id     uint32
		perCPU []abi.SocketLosses
	)
	known := s.openMap(t, "xdp-sockets", 1).Iterate()
	for known.Next(&key, &id) {
		doors++
	}
	counted := s.openMap(t, "socket-losses", 2).Iterate()
	for counted.Next(&id, &perCPU) {
		counters++
	}
	if err := errors.Join(known.Err(), counted.Err()); err != nil {
		t.Fatal(err)
	}
	return doors, counters
}

func dnsQuery() []byte { return ether(typeIP4, ip4(17, nil, udp(4000, 53))) }

// TestAnUplinkMadeAnewHasNobodyRegistered: sockets of the former device would swallow what the kernel can have.
func TestAnUplinkMadeAnewHasNobodyRegistered(t *testing.T) {
	g := bypassGeneration(xsk.Socket{Name: "dns", Interfaces: []string{"uplink"}})
	s := newSite(t, g)
	c := s.bind(t, s.path(t), 64, 0)
	if err := sendFrames(ifindex(t, "tor"), dnsQuery(), 2); err != nil {
		t.Fatal(err)
	}
	if got := c.receive(t, 2); len(got) != 2 {
		t.Fatalf("%d of 2 frames arrived", len(got))
	}
	old, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(old); err != nil {
		t.Fatal(err)
	}
	s.uplink = addVeth(t, "uplink", "tor")
	s.load(t, g)
	if err := sendFrames(ifindex(t, "tor"), dnsQuery(), 3); err != nil {
		t.Fatal(err)
	}
	s.awaitCounters(t, 3)
	if got := s.reason(t, abi.ReasonBypassStack); got != 3 {
		t.Errorf("%d of 3 packets went to the kernel", got)
	}
	again := s.bind(t, s.path(t), 64, 0)
	if err := sendFrames(ifindex(t, "tor"), dnsQuery(), 2); err != nil {
		t.Fatal(err)
	}
	if got := again.receive(t, 2); len(got) != 2 {
		t.Errorf("%d of 2 frames arrived at who registered anew", len(got))
	}
}
