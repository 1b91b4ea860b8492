package wireguard

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"sluice/crypto/keys"
	"sluice/crypto/path"
)

// pair is two nodes on one wire. Node a reaches everything by default through b, in clear.
type pair struct {
	a, b       *space
	wantA      State
	wantB      State
	wire       *capture
	endA, endB *end
}

const port = 51820

// newPair builds the namespaces and the wanted states, and starts no end.
func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{a: newSpace(t), b: newSpace(t)}
	p.a.connect(t, p.b, "up0", "198.18.0.1/24", "up1", "198.18.0.2/24")
	p.b.Address(t, "lo", "10.20.0.1/32", "fd00:20::1/128")
	p.a.Address(t, "up0", "2001:db8::1/64")
	p.b.Address(t, "up1", "2001:db8::2/64")
	for _, gw := range []string{"198.18.0.2", "2001:db8::2"} {
		if err := p.a.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}); err != nil {
			t.Fatal(err)
		}
	}
	p.b.serveEcho(t, "198.18.0.2", "10.20.0.1", "fd00:20::1")
	dir := t.TempDir()
	keyA, keyB, psk := newKey(t, dir, "a"), newKey(t, dir, "b"), filepath.Join(dir, "psk")
	if err := keys.GeneratePSK(psk); err != nil {
		t.Fatal(err)
	}
	p.wantA = State{Tunnels: []Tunnel{{
		Name: "fra1", Backend: Userspace, PrivateKeyFile: keyA.file, PublicKey: keyA.public, ListenPort: port, MTU: 1420,
		FirewallMark: 0x51, Addresses: list("10.200.0.0/31", "fd00:200::/127"),
		Peers: []Peer{{
			Name: "b", PublicKey: keyB.public, Endpoint: addrPort("198.18.0.2:51820"), PresharedKeyFile: psk, Keepalive: 25 * time.Second,
			AllowedIPs: list("10.20.0.0/16", "10.200.0.1/32", "fd00:20::/64", "fd00:200::1/128"),
		}},
		Routes: []path.Route{{Prefix: list("10.20.0.0/16")[0], Metric: 100}, {Prefix: list("fd00:20::/64")[0], Metric: 100}},
	}}}
	p.a.holes = path.State{Blackholes: []path.Blackhole{{Prefix: list("10.20.0.0/16")[0]}, {Prefix: list("fd00:20::/64")[0]}}}
	p.wantB = State{Tunnels: []Tunnel{{
		Name: "fra1", Backend: Userspace, PrivateKeyFile: keyB.file, PublicKey: keyB.public, ListenPort: port, MTU: 1420,
		Addresses: list("10.200.0.1/31", "fd00:200::1/127"),
		Peers: []Peer{{
			Name: "a", PublicKey: keyA.public, PresharedKeyFile: psk, AllowedIPs: list("10.200.0.0/32", "fd00:200::/128"),
		}},
	}}}
	p.wire = p.a.capture(t, "up0")
	return p
}

// up starts both ends and waits until the tunnel carries traffic.
func (p *pair) up(t *testing.T) {
	t.Helper()
	p.endA, p.endB = startEnd(t, p.a), startEnd(t, p.b)
	p.endB.converge(p.wantB)
	p.endA.converge(p.wantA)
	p.a.answers(t, "10.20.0.1", marker)
}

type keyPair struct{ file, public string }

func newKey(t testing.TB, dir, name string) keyPair {
	t.Helper()
	file := filepath.Join(dir, name+".key")
	public, err := keys.Generate(file)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{file, public}
}

func TestTrafficCrossesTheTunnelAndOnlyEncrypted(t *testing.T) {
	p := newPair(t)
	p.up(t)
	p.a.answers(t, "fd00:20::1", marker)
	for _, address := range []string{"10.20.0.1", "fd00:20::1"} {
		if out, err := p.a.run(t, "ping", "-c", "3", "-i", "0.05", "-W", "2", "-p", "736c75696365", address); err != nil {
			t.Errorf("ping %s: %v\n%s", address, err, out)
		}
		streams(t, p.a.dial(t, "tcp", address), 2<<20)
	}
	p.fence(t)
	marked, udp := p.wire.seen()
	if marked != 0 {
		t.Errorf("%d frames on the wire hold the marker in clear", marked)
	}
	if udp(port) < 8<<20 {
		t.Errorf("%d bytes to port %d on the wire, want those of two streams of 2 MB and their echoes", udp(port), port)
	}
	// The capture is not blind: the same bytes, sent beside the tunnel, are seen.
	p.a.answers(t, "198.18.0.2", marker)
	until(t, "the marker sent in clear is captured", func() bool { m, _ := p.wire.seen(); return m > 0 })
}

// streams sends n bytes full of markers and wants them back.
func streams(t *testing.T, c net.Conn, n int) {
	t.Helper()
	sent := bytes.Repeat(marker, n/len(marker))
	c.SetDeadline(time.Now().Add(30 * time.Second))
	go c.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("TCP to %s: %v", c.RemoteAddr(), err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("TCP to %s: the echo differs", c.RemoteAddr())
	}
}

func TestObserveTellsWhatWasApplied(t *testing.T) {
	p := newPair(t)
	p.up(t)
	if diff := cmp.Diff(p.wantA, p.endA.observe(), comparePrefix); diff != "" {
		t.Errorf("node a (-want +have):\n%s", diff)
	}
	if ops := p.endA.converge(p.wantA); len(ops) != 0 {
		t.Errorf("a second apply does %v", ops)
	}
	// Node b names no endpoint: it has learned one, and leaves it so.
	if ops := p.endB.converge(p.wantB); len(ops) != 0 {
		t.Errorf("a second apply on b does %v", ops)
	}
	if got := p.endB.observe().Tunnels[0].Peers[0].Endpoint; got != addrPort("198.18.0.1:51820") {
		t.Errorf("b has learned %s", got)
	}
}

func TestStatusTellsTheSession(t *testing.T) {
	p := newPair(t)
	p.up(t)
	s := []TunnelStatus{p.endA.status()}
	if len(s[0].Peers) != 1 {
		t.Fatalf("%+v", s)
	}
	peer := s[0].Peers[0]
	if age := time.Since(peer.LastHandshake); age < -time.Second || age > time.Minute {
		t.Errorf("last handshake %s", peer.LastHandshake)
	}
	if peer.RxBytes == 0 || peer.TxBytes == 0 {
		t.Errorf("bytes: rx %d, tx %d", peer.RxBytes, peer.TxBytes)
	}
	s[0].Peers[0].LastHandshake, s[0].Peers[0].RxBytes, s[0].Peers[0].TxBytes = time.Time{}, 1, 2
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	w := p.wantA.Tunnels[0]
	want := `[{"name":"fra1","backend":"userspace","interface":"fra1","running":true,"listen_port":51820,"mtu":1420,"public_key":"` +
		w.PublicKey + `","peers":[{"name":"b","public_key":"` + w.Peers[0].PublicKey + `","endpoint":"198.18.0.2:51820","rx_bytes":1,"tx_bytes":2,` +
		`"allowed_ips":["10.20.0.0/16","10.200.0.1/32","fd00:20::/64","fd00:200::1/128"]}]}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestTheFirewallMarkIsOnEncryptedPackets(t *testing.T) {
	p := newPair(t)
	p.up(t)
	if out, err := p.a.run(t, "ip", "rule", "add", "fwmark", "0x51", "blackhole"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	c := p.a.dial(t, "udp", "10.20.0.1")
	until(t, "no encrypted packet leaves while its mark is routed to nowhere", func() bool {
		_, before := p.wire.seen()
		for range 20 {
			c.Write(marker)
		}
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := c.Read(make([]byte, 100))
		_, after := p.wire.seen()
		return err != nil && after(port) == before(port)
	})
}

func TestWithoutDaemonAndProcessTheLinkStaysAndLeaksNothing(t *testing.T) {
	p := newPair(t)
	p.up(t)
	index, routes := p.a.link(t, "fra1").Attrs().Index, p.a.routes(t)
	p.endA.kill()
	p.a.killProcess(t, "fra1")
	if got := p.a.link(t, "fra1").Attrs().Index; got != index {
		t.Fatalf("the link has index %d, had %d", got, index)
	}
	if diff := cmp.Diff(routes, p.a.routes(t)); diff != "" {
		t.Fatalf("routes (-before +after):\n%s", diff)
	}
	p.sendsNoMarker(t, "daemon and process are dead")
	// Routers often set this; the route into the dead device is then passed over, and the blackhole is what is left.
	for _, key := range []string{"net.ipv4.conf.all.ignore_routes_with_linkdown", "net.ipv6.conf.all.ignore_routes_with_linkdown",
		"net.ipv4.conf.fra1.ignore_routes_with_linkdown", "net.ipv6.conf.fra1.ignore_routes_with_linkdown"} {
		if out, err := p.a.run(t, "sysctl", "-w", key+"=1"); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	p.sendsNoMarker(t, "and its routes are ignored")

	p.endA = startEnd(t, p.a)
	ops := p.endA.converge(p.wantA)
	if diff := cmp.Diff([]string{"start tunnel fra1 on its existing interface",
		"add peer b to fra1 (10.20.0.0/16 10.200.0.1/32 fd00:20::/64 fd00:200::1/128)"}, ops); diff != "" {
		t.Errorf("the restart does (-want +have):\n%s", diff)
	}
	p.a.answers(t, "10.20.0.1", marker)
	p.a.answers(t, "fd00:20::1", marker)
	if got := p.a.link(t, "fra1").Attrs().Index; got != index {
		t.Errorf("the restart made a new link")
	}
	if marked, _ := p.wire.seen(); marked != 0 {
		t.Errorf("%d frames in clear", marked)
	}
	// The proof that these sends would have been seen: without the tunnel they leave by the default route.
	p.endA.must(request{Do: "down"})
	p.send(t)
	until(t, "the marker leaves in clear once tunnel and blackholes are gone", func() bool { m, _ := p.wire.seen(); return m > 0 })
}

// fence waits until the capture has seen all that was sent before.
func (p *pair) fence(t *testing.T) {
	t.Helper()
	count := func() int {
		p.wire.mu.Lock()
		defer p.wire.mu.Unlock()
		return p.wire.fences
	}
	before := count()
	p.a.answers(t, "198.18.0.2", fence)
	until(t, "the fence is captured", func() bool { return count() > before })
	p.wire.Complete(t)
}

// sendsNoMarker sends into the strict prefixes.
func (p *pair) sendsNoMarker(t *testing.T, when string) {
	t.Helper()
	before, _ := p.wire.seen()
	p.send(t)
	p.fence(t)
	if after, _ := p.wire.seen(); after != before {
		t.Errorf("when %s, %d frames leave in clear", when, after-before)
	}
}

func (p *pair) send(t *testing.T) {
	t.Helper()
	for _, address := range []string{"10.20.0.1", "fd00:20::1"} {
		p.a.Do(t, func() error {
			c, err := net.Dial("udp", net.JoinHostPort(address, "7"))
			if err != nil {
				return nil // a blackhole refuses at once
			}
			defer c.Close()
			for range 50 {
				c.Write(marker) // its error is a refusal as well
			}
			return nil
		})
	}
}

func TestStopLeavesTheTunnelAndDownLeavesNothing(t *testing.T) {
	p := newPair(t)
	p.up(t)
	foreign := foreignThings(t, p.a)
	p.endA.stop()
	p.a.link(t, "fra1")
	if len(p.a.routes(t)) != 5 { // one of them other0's
		t.Errorf("after stop: %v", p.a.routes(t))
	}
	pid := p.a.process(t, "fra1")
	p.endA = startEnd(t, p.a)
	if s := p.endA.observe(); s.Tunnels[0].Down {
		t.Errorf("the tunnel is observed as down: %+v", s)
	}
	p.endA.must(request{Do: "down"})
	if _, err := p.a.LinkByName("fra1"); err == nil {
		t.Error("the link is there after down")
	}
	if !gone(pid) {
		t.Errorf("process %d lives after down", pid)
	}
	if left, err := os.ReadDir(p.a.stateDir); err != nil || len(left) != 0 {
		t.Errorf("files after down: %v, %v", left, err)
	}
	if r := p.a.routes(t); len(r) != 1 {
		t.Errorf("routes of ours after down: %v", r)
	}
	if diff := cmp.Diff(foreign, foreignThings(t, p.a)); diff != "" {
		t.Errorf("what is not ours changed (-before +after):\n%s", diff)
	}
	p.endA.must(request{Do: "down"})
}

// foreignThings makes, once, a link and a route that look much like ours, and tells all links and routes but ours.
func foreignThings(t *testing.T, s *space) []string {
	t.Helper()
	if _, err := s.LinkByName("other0"); err != nil {
		// A TUN is made in the namespace of the thread, not of the handle.
		s.Do(t, func() error {
			return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "other0"}, Mode: netlink.TUNTAP_MODE_TUN})
		})
		s.Address(t, "other0", "10.30.0.1/24")
		s.Up(t, "other0")
		dst := path.IPNet(list("10.31.0.0/16")[0])
		route := &netlink.Route{LinkIndex: s.link(t, "other0").Attrs().Index, Dst: &dst, Protocol: path.Protocol, Scope: netlink.SCOPE_LINK}
		if err := s.RouteAdd(route); err != nil {
			t.Fatal(err)
		}
	}
	out, err := s.run(t, "ip", "-o", "addr", "show")
	if err != nil {
		t.Fatal(err)
	}
	routes, err := s.run(t, "ip", "route", "show", "table", "all")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(out+routes, "\n"), func(line string) bool {
		// Link-local addresses come by themselves, when their duplicate detection ends.
		return strings.Contains(line, "fra1") || strings.Contains(line, "blackhole") || strings.Contains(line, "fe80:")
	})
}

func TestChangesOfOnePeerCostAnotherNoPacket(t *testing.T) {
	p := newPair(t)
	// Prefixes that come and go on the busy peer, which keeps the one that carries the traffic.
	extra := list("10.21.0.0/16", "fd00:21::/64")
	third := Peer{Name: "c", PublicKey: newKey(t, t.TempDir(), "c").public, AllowedIPs: list("10.40.0.0/16")}
	p.up(t)
	count := startEchoes(p.a.dial(t, "udp", "10.20.0.1"))
	for i := range 30 {
		want := p.wantA.Tunnels[0]
		want.Peers = slices.Clone(want.Peers)
		busy := &want.Peers[0]
		if i%2 == 0 {
			busy.AllowedIPs = append(slices.Clone(busy.AllowedIPs), extra...)
		}
		if i%3 != 0 {
			c := third
			c.Keepalive = time.Duration(i%5) * time.Second
			if i%2 == 1 {
				c.AllowedIPs = append(slices.Clone(c.AllowedIPs), extra...) // they move from b to c
			}
			want.Peers = append(want.Peers, c)
		}
		want.Routes = append(slices.Clone(want.Routes), path.Route{Prefix: list("10.40.0.0/16")[0], Metric: 100 + i%2})
		want.FirewallMark = uint32(i % 3)
		before := count.sent.Load()
		p.endA.converge(State{Tunnels: []Tunnel{want}})
		until(t, "traffic between two changes", func() bool { return count.sent.Load() > before+5 })
	}
	close(count.stop)
	<-count.done
	t.Logf("%d of %d answered", count.answered.Load(), count.sent.Load())
	if lost := count.sent.Load() - count.answered.Load(); lost != 0 {
		t.Errorf("%d datagrams were lost", lost)
	}
}

type echoes struct {
	sent, answered atomic.Int64
	stop, done     chan struct{}
}

// startEchoes sends a datagram every 2 ms, and counts those sent and those answered.
func startEchoes(c net.Conn) *echoes {
	e := &echoes{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		buf := make([]byte, 100)
		for {
			select {
			case <-e.stop:
				return
			case <-tick.C:
			}
			payload := rand.Text()
			c.Write([]byte(payload))
			c.SetReadDeadline(time.Now().Add(20 * time.Second)) // of one that is lost
			if n, err := c.Read(buf); err == nil && string(buf[:n]) == payload {
				e.answered.Add(1)
			}
			e.sent.Add(1)
		}
	}()
	return e
}

func TestAttributesChangeInPlace(t *testing.T) {
	p := newPair(t)
	p.up(t)
	index := p.a.link(t, "fra1").Attrs().Index
	key := newKey(t, t.TempDir(), "new")
	want := p.wantA.Tunnels[0]
	want.PrivateKeyFile, want.PublicKey = key.file, key.public
	want.ListenPort, want.MTU, want.FirewallMark = 51999, 1380, 0
	// The wanted address stands in the same subnet, and is a secondary one until the first goes.
	want.Addresses = list("10.200.0.4/24", "10.200.0.9/24", "fd00:200::/127")
	want.Peers = slices.Clone(want.Peers)
	want.Peers[0].PresharedKeyFile, want.Peers[0].Keepalive = "", 0
	p.endA.converge(State{Tunnels: []Tunnel{want}})
	want.Addresses = list("10.200.0.9/24")
	p.endA.converge(State{Tunnels: []Tunnel{want}})
	if diff := cmp.Diff(State{Tunnels: []Tunnel{want}}, p.endA.observe(), comparePrefix); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
	if p.a.link(t, "fra1").Attrs().Index != index {
		t.Error("the link was made anew")
	}
	if got := p.a.link(t, "fra1").Attrs().MTU; got != 1380 {
		t.Errorf("MTU %d", got)
	}
}

func TestALinkSetDownByHandIsStartedAgain(t *testing.T) {
	p := newPair(t)
	p.up(t)
	if err := p.a.LinkSetDown(p.a.link(t, "fra1")); err != nil {
		t.Fatal(err)
	}
	p.endA.converge(p.wantA)
	if diff := cmp.Diff(p.wantA, p.endA.observe(), comparePrefix); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
	p.a.answers(t, "fd00:20::1", marker)
}

func TestALinkDeletedByHandIsMadeAgain(t *testing.T) {
	p := newPair(t)
	p.up(t)
	if err := p.a.LinkDel(p.a.link(t, "fra1")); err != nil {
		t.Fatal(err)
	}
	p.sendsNoMarker(t, "the link is gone")
	p.endA.converge(p.wantA)
	p.a.answers(t, "10.20.0.1", marker)
}

func TestAPresharedKeyFileWithNewContentIsSeen(t *testing.T) {
	p := newPair(t)
	p.up(t)
	psk := p.wantA.Tunnels[0].Peers[0].PresharedKeyFile
	if err := os.Remove(psk); err != nil {
		t.Fatal(err)
	}
	if err := keys.GeneratePSK(psk); err != nil {
		t.Fatal(err)
	}
	ops := p.endA.converge(p.wantA)
	if diff := cmp.Diff([]string{"update peer b of fra1: preshared key " + psk}, ops); diff != "" {
		t.Error(diff)
	}
}
