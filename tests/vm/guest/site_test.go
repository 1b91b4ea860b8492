//go:build vmguest

package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/crypto/keys"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
	tunneld "sluice/crypto/wireguard/child"
	"sluice/tests/nstest"
)

// site is two nodes on one wire. Node b lives in the namespace of the process, where an embedded device makes its
// sockets; node a in one of its own, so it takes the kernel's devices only.
type site struct {
	a, b         *node
	wantA, wantB wireguard.State
	wire         *capture
}

// node runs everything on threads inside its namespace.
type node struct {
	ns     netns.NsHandle
	nl     *netlink.Handle
	dir    string // of its daemons' state
	driver *wireguard.Driver
}

var marker = []byte("sluice-plaintext-marker-0123456789")

// fence is sent in clear after what is to be judged: a capture that has it has all that went before.
var fence = []byte("sluice-fence-9876543210")

func newSite(t *testing.T, backendA, backendB wireguard.Backend) *site {
	t.Helper()
	s := &site{a: newNode(t, netns.New), b: newNode(t, netns.Get)}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "up1", PeerNamespace: netlink.NsFd(s.b.ns)}
	if err := s.a.nl.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The namespace of b stays from test to test.
		if l, err := s.b.nl.LinkByName("up1"); err == nil {
			s.b.nl.LinkDel(l)
		}
	})
	s.a.setUp(t, "lo")
	s.a.setUp(t, "up0", "198.18.0.1/24", "2001:db8::1/64")
	s.b.setUp(t, "up1", "198.18.0.2/24", "2001:db8::2/64", "10.20.0.1/32", "fd00:20::1/128")
	s.wire = s.a.capture(t, "up0")
	s.b.serveEcho(t, "198.18.0.2", "10.20.0.1", "fd00:20::1")
	t.Cleanup(func() { s.b.down(t); s.b.driver.Stop() })

	keyA, keyB, psk := newKey(t, "a"), newKey(t, "b"), filepath.Join(t.TempDir(), "psk")
	if err := keys.GeneratePSK(psk); err != nil {
		t.Fatal(err)
	}
	s.wantA = wireguard.State{Tunnels: []wireguard.Tunnel{{
		Name: "fra1", Backend: backendA, PrivateKeyFile: keyA.file, PublicKey: keyA.public, ListenPort: 51820, MTU: 1420, FirewallMark: 0x51,
		Addresses: list("10.200.0.0/31", "fd00:200::/127"),
		Peers: []wireguard.Peer{{Name: "b", PublicKey: keyB.public, Endpoint: netip.MustParseAddrPort("198.18.0.2:51820"),
			PresharedKeyFile: psk, Keepalive: 25 * time.Second, AllowedIPs: list("10.20.0.0/16", "10.200.0.1/32", "fd00:20::/64", "fd00:200::1/128")}},
		Routes: []path.Route{{Prefix: list("10.20.0.0/16")[0], Metric: 100}, {Prefix: list("fd00:20::/64")[0], Metric: 100}},
	}}}
	s.wantB = wireguard.State{Tunnels: []wireguard.Tunnel{{
		Name: "fra1", Backend: backendB, PrivateKeyFile: keyB.file, PublicKey: keyB.public, ListenPort: 51820, MTU: 1420,
		Addresses: list("10.200.0.1/31", "fd00:200::1/127"),
		Peers:     []wireguard.Peer{{Name: "a", PublicKey: keyA.public, PresharedKeyFile: psk, AllowedIPs: list("10.200.0.0/32", "fd00:200::/128")}},
	}}}
	return s
}

func (s *site) up(t *testing.T) {
	t.Helper()
	s.b.converge(t, s.wantB)
	s.a.converge(t, s.wantA)
	s.a.answers(t, "10.20.0.1")
}

func newNode(t *testing.T, open func() (netns.NsHandle, error)) *node {
	t.Helper()
	n := &node{dir: t.TempDir()}
	err := onThread(func() (err error) {
		n.ns, err = open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.ns.Close() })
	if n.nl, err = netlink.NewHandleAt(n.ns, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.nl.Close)
	n.restart(t)
	return n
}

// onThread runs f on a thread that ends afterwards, so that it may change its namespace.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

func (n *node) do(t testing.TB, f func() error) {
	t.Helper()
	if err := n.try(f); err != nil {
		t.Fatal(err)
	}
}

func (n *node) try(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.ns); err != nil {
			return err
		}
		return f()
	})
}

// restart is a new daemon that knows nothing.
func (n *node) restart(t *testing.T) {
	t.Helper()
	n.do(t, func() (err error) {
		n.driver, err = wireguard.New(slog.New(slog.NewTextHandler(os.Stdout, nil)), wireguard.Options{
			StateDir: n.dir, Command: []string{"/proc/self/exe", tunneld.Verb},
		})
		return err
	})
}

func (n *node) converge(t *testing.T, want wireguard.State) (ops []wireguard.Op) {
	t.Helper()
	ops = wireguard.Diff(n.observe(t), want)
	if err := n.tryConverge(t, want); err != nil {
		t.Fatal(err)
	}
	return ops
}

func (n *node) tryConverge(t *testing.T, want wireguard.State) error {
	t.Helper()
	ops := wireguard.Diff(n.observe(t), want)
	return n.try(func() error {
		for _, op := range ops {
			if err := n.driver.Apply(context.Background(), op); err != nil {
				return err
			}
		}
		return nil
	})
}

func (n *node) observe(t *testing.T) (s wireguard.State) {
	t.Helper()
	n.do(t, func() (err error) {
		s, err = n.driver.Observe(context.Background())
		return err
	})
	return s
}

func (n *node) status(t *testing.T) (s []wireguard.TunnelStatus) {
	t.Helper()
	n.do(t, func() (err error) {
		s, err = n.driver.Status(context.Background())
		return err
	})
	return s
}

func (n *node) down(t *testing.T) {
	t.Helper()
	n.do(t, func() error { return n.driver.Down(context.Background()) })
}

func (n *node) setUp(t *testing.T, name string, addresses ...string) {
	t.Helper()
	l, err := n.nl.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := n.nl.AddrAdd(l, addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.nl.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
}

func (n *node) serveEcho(t *testing.T, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		var c net.PacketConn
		n.do(t, func() (err error) {
			c, err = net.ListenPacket("udp", net.JoinHostPort(a, "7"))
			return err
		})
		t.Cleanup(func() { c.Close() })
		roomy(t, c.(*net.UDPConn))
		go func() {
			buf := make([]byte, 4096)
			for {
				m, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				c.WriteTo(buf[:m], from)
			}
		}()
	}
}

func (n *node) dial(t *testing.T, address string) net.Conn {
	t.Helper()
	var c net.Conn
	n.do(t, func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(address, "7"))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func (n *node) answers(t *testing.T, address string) {
	t.Helper()
	n.answersTo(t, address, marker)
}

// answersTo sends payload until it comes back.
func (n *node) answersTo(t *testing.T, address string, payload []byte) {
	t.Helper()
	c := n.dial(t, address)
	buf := make([]byte, 4096)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		c.Write(payload)
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if m, err := c.Read(buf); err == nil && bytes.Equal(buf[:m], payload) {
			return
		}
	}
	t.Fatalf("no answer from %s in %s", address, patience)
}

type echoes struct {
	sent, answered atomic.Int64
	stop, done     chan struct{}
}

// startEchoes sends through the tunnel, one datagram after the other.
func (n *node) startEchoes(t *testing.T) *echoes {
	t.Helper()
	c := n.dial(t, "10.20.0.1")
	e := &echoes{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		buf := make([]byte, 100)
		for {
			select {
			case <-e.stop:
				return
			default:
			}
			c.Write(marker)
			c.SetReadDeadline(time.Now().Add(patience)) // of one that is lost
			if _, err := c.Read(buf); err == nil {
				e.answered.Add(1)
			}
			e.sent.Add(1)
		}
	}()
	return e
}

// more waits for n more datagrams.
func (e *echoes) more(t *testing.T, n int64) {
	t.Helper()
	target := e.sent.Load() + n
	for deadline := time.Now().Add(2 * patience); e.sent.Load() < target; time.Sleep(time.Millisecond) { // one that is lost takes half of it
		if time.Now().After(deadline) {
			t.Fatal("the traffic has stopped")
		}
	}
}

// finish asserts that nothing was lost of at least n datagrams.
func (e *echoes) finish(t *testing.T, n int64) {
	t.Helper()
	e.more(t, n)
	close(e.stop)
	<-e.done
	t.Logf("%d of %d answered", e.answered.Load(), e.sent.Load())
	if lost := e.sent.Load() - e.answered.Load(); lost != 0 {
		t.Errorf("%d datagrams were lost", lost)
	}
}

// capture counts frames that hold the marker in clear, UDP frames to the tunnel's port, and ESP frames, in UDP or not.
type capture struct {
	*nstest.Sniffer
	mu                            sync.Mutex
	clear, encrypted, fences, esp int
	last                          []byte // of the ESP frames
}

func (n *node) capture(t *testing.T, name string) *capture {
	t.Helper()
	c := &capture{}
	c.Sniffer = nstest.Sniff(t, n.do, name, c.count)
	return c
}

func (c *capture) count(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Contains(frame, marker) {
		c.clear++
	}
	if bytes.Contains(frame, fence) {
		c.fences++
	}
	switch protocol, to := carries(frame); {
	case protocol == unix.IPPROTO_ESP, protocol == unix.IPPROTO_UDP && to == 4500:
		c.esp, c.last = c.esp+1, bytes.Clone(frame)
	case protocol == unix.IPPROTO_UDP && to == 51820:
		c.encrypted++
	}
}

// carries looks behind headers without options: at the protocol, and the port that it goes to.
func carries(frame []byte) (protocol byte, to uint16) {
	if len(frame) < 14+40 {
		return 0, 0
	}
	protocol, rest := frame[14+9], frame[14+20:]
	if frame[12] == 0x86 && frame[13] == 0xdd {
		protocol, rest = frame[14+6], frame[14+40:]
	}
	if len(rest) <= 8 {
		return 0, 0
	}
	return protocol, binary.BigEndian.Uint16(rest[2:])
}

// seen counts what has crossed the wire until now.
func (s *site) seen(t *testing.T) (clear, encrypted int) {
	t.Helper()
	fences := func() int {
		s.wire.mu.Lock()
		defer s.wire.mu.Unlock()
		return s.wire.fences
	}
	before := fences()
	s.a.answersTo(t, "198.18.0.2", fence)
	for deadline := time.Now().Add(patience); fences() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the capture has not seen the fence")
		}
	}
	s.wire.Complete(t)
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	return s.wire.clear, s.wire.encrypted
}

type keyPair struct{ file, public string }

func newKey(t *testing.T, name string) keyPair {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".key")
	public, err := keys.Generate(file)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{file, public}
}

func list(prefixes ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
