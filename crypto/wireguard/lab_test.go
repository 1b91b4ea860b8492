package wireguard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/crypto/path"
	"sluice/tests/nstest"
)

// space is a network namespace whose tunnels go before the test ends, and with them the processes behind their TUNs.
type space struct {
	*nstest.NS
	stateDir string     // of the end that runs in it
	holes    path.State // what the subsystem of blackholes should hold
}

func newSpace(t testing.TB) *space {
	t.Helper()
	s := &space{NS: nstest.New(t), stateDir: t.TempDir()}
	t.Cleanup(func() {
		links, err := s.LinkList()
		for _, l := range links {
			if l.Type() == "tuntap" {
				err = errors.Join(err, s.LinkDel(l))
			}
		}
		if err != nil {
			t.Errorf("tunnels are left: %v", err)
		}
	})
	return s
}

func (s *space) link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := s.LinkByName(name)
	if err != nil {
		t.Fatalf("interface %s: %v", name, err)
	}
	return l
}

// connect makes a veth between s and other, with an address on either side.
func (s *space) connect(t testing.TB, other *space, name, address, peerName, peerAddress string) {
	t.Helper()
	nstest.Veth(t, s.NS, name, other.NS, peerName)
	s.Address(t, name, address)
	other.Address(t, peerName, peerAddress)
}

func (s *space) run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	var out []byte
	var err error
	s.Do(t, func() error {
		out, err = exec.Command(name, args...).CombinedOutput()
		return nil
	})
	return string(out), err
}

// serveEcho answers UDP and TCP on port 7 of the addresses, each by a socket of its own: a reply from a socket bound to
// no address would come from another than was asked.
func (s *space) serveEcho(t *testing.T, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		var udp net.PacketConn
		var tcp net.Listener
		s.Do(t, func() (err error) {
			if udp, err = net.ListenPacket("udp", net.JoinHostPort(a, "7")); err != nil {
				return err
			}
			tcp, err = net.Listen("tcp", net.JoinHostPort(a, "7"))
			return err
		})
		roomy(t, udp.(*net.UDPConn))
		t.Cleanup(func() { udp.Close(); tcp.Close() })
		go echoDatagrams(udp)
		go func() {
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
	}
}

// roomy gives a socket room for what comes at once after it was held: what it has no room for, no tunnel has lost.
func roomy(t *testing.T, c interface {
	SyscallConn() (syscall.RawConn, error)
}) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
		err = errors.Join(err, ctlErr)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func echoDatagrams(c net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		c.WriteTo(buf[:n], from)
	}
}

func (s *space) dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	var c net.Conn
	s.Do(t, func() (err error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		c, err = d.Dial(network, net.JoinHostPort(address, "7"))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// answers sends payload over UDP until it comes back, for at most 15 seconds.
func (s *space) answers(t *testing.T, address string, payload []byte) {
	t.Helper()
	c := s.dial(t, "udp", address)
	defer c.Close()
	buf := make([]byte, 4096)
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		c.Write(payload)
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := c.Read(buf); err == nil && bytes.Equal(buf[:n], payload) {
			return
		}
	}
	t.Fatalf("no answer from %s in 15 s", address)
}

// capture counts what crosses an interface, in both directions, from Ethernet up.
type capture struct {
	*nstest.Sniffer
	mu     sync.Mutex
	marked int            // frames that hold the marker in clear
	fences int            // frames that hold the fence
	from   map[string]int // frames to WireGuard's port by source
	udp    map[uint16]int // bytes of IPv4 UDP by destination port; segmentation offload makes frames no measure
}

// fence is sent in clear after what is to be judged: a capture that has it has all that went before.
var fence = []byte("sluice-fence-9876543210")

// marker is the payload whose bytes must never be seen outside the tunnel.
var marker = []byte("sluice-plaintext-marker-0123456789")

func (s *space) capture(t *testing.T, name string) *capture {
	t.Helper()
	c := &capture{from: map[string]int{}, udp: map[uint16]int{}}
	c.Sniffer = nstest.Sniff(t, s.Do, name, c.count)
	return c
}

func (c *capture) count(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Contains(frame, marker) {
		c.marked++
	}
	if bytes.Contains(frame, fence) {
		c.fences++
	}
	if a := sender(frame); a.IsValid() {
		c.from[a.String()]++
	}
	// Ethernet 14, IPv4 without options 20, then the UDP ports.
	if len(frame) >= 38 && frame[12] == 8 && frame[13] == 0 && frame[14] == 0x45 && frame[23] == unix.IPPROTO_UDP {
		c.udp[binary.BigEndian.Uint16(frame[36:38])] += len(frame)
	}
}

func (c *capture) seen() (marked int, udp func(uint16) int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	copied := map[uint16]int{}
	for port, n := range c.udp {
		copied[port] = n
	}
	return c.marked, func(port uint16) int { return copied[port] }
}

// until polls for at most ten seconds.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s still not: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// routes returns the routes of protocol 187 as text.
func (s *space) routes(t *testing.T) []string {
	t.Helper()
	list, err := s.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: path.Protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range list {
		p, _ := path.PrefixOf(r.Dst)
		dev := "blackhole"
		if r.Type != unix.RTN_BLACKHOLE {
			l, err := s.LinkByIndex(r.LinkIndex)
			if err != nil {
				t.Fatal(err)
			}
			dev = l.Attrs().Name
		}
		out = append(out, fmt.Sprintf("%s %s %d", p, dev, r.Priority))
	}
	return out
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
