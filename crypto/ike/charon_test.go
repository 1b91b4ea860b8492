package ike

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sluice/crypto/keys"
)

// settings are a strongswan.conf of the test's own: nothing of the machine's is read. The plugins are listed, for those of
// other packages would come with whatever is installed.
const settings = `
charon-systemd {
	load = random nonce aes sha1 sha2 hmac kdf gcm openssl x509 pem pkcs1 pkcs8 revocation constraints %s socket-default vici
	retransmit_timeout = 0.5
	retransmit_tries = 4
	plugins {
		vici { socket = unix://%s }
		openssl { load_legacy = no }
	}
	journal { default = -1 }
	filelog { stderr { default = 1 } }
}
`

// The plugins that do what a kernel does. The one of user space makes a TUN, takes ESP in UDP only, and knows neither
// interface ids nor traps.
const (
	userspace = "kernel-libipsec kernel-netlink"
	netlinked = "kernel-netlink"
)

// charon is a running daemon in a namespace.
type charon struct {
	t      *testing.T
	in     *space
	dir    string
	socket string
	cmd    *exec.Cmd
}

func startCharon(t *testing.T, in *space, kernel string) *charon {
	t.Helper()
	dir, err := os.MkdirTemp("", "charon") // a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	c := &charon{t: t, in: in, dir: dir, socket: filepath.Join(dir, "vici")}
	t.Cleanup(func() { c.kill(); os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "strongswan.conf"), fmt.Appendf(nil, settings, kernel, c.socket), 0o600); err != nil {
		t.Fatal(err)
	}
	c.start()
	return c
}

func (c *charon) start() {
	c.t.Helper()
	path, err := exec.LookPath("charon-systemd")
	if err != nil {
		path = "/usr/sbin/charon-systemd" // not in everybody's PATH
	}
	c.cmd = exec.Command(path)
	c.cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(c.dir, "strongswan.conf"))
	said, err := c.cmd.StderrPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	c.in.Do(c.t, c.cmd.Start)
	go relay(c.t, filepath.Base(c.dir), said)
}

// relay ends with the process, which ends with the test.
func relay(t *testing.T, who string, said io.Reader) {
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if t.Context().Err() == nil {
			t.Logf("%s: %s", who, lines.Text())
		}
	}
}

// kill is SIGKILL, and waits until the kernel has closed what the process held.
func (c *charon) kill() {
	if c.cmd != nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
		c.cmd = nil
	}
}

// end is one of two nodes: its charon, and a client with its supervision.
type end struct {
	*space
	charon *charon
	client *Client
	conn   Conn
	stop   context.CancelFunc
}

// pair is two nodes on one wire. 10.10.0.1 is a's, 10.20.0.1 is b's; a leads.
type pair struct {
	a, b *end
	wire *capture
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{a: &end{space: newSpace(t)}, b: &end{space: newSpace(t)}}
	p.a.connect(t, p.b.space)
	p.a.Address(t, "lo", "10.10.0.1/32", "10.11.0.1/32", "fd00:10::1/128")
	p.b.Address(t, "lo", "10.20.0.1/32", "10.21.0.1/32", "fd00:20::1/128")
	p.b.serveEcho(t, "10.20.0.1", "fd00:20::1", "198.18.0.2")
	psk := newKey(t)
	// kernel-libipsec knows neither ESN nor interface ids.
	esp := []string{"aes256gcm16-x25519"}
	p.a.conn = Conn{
		Tunnel: "fra1", Peer: "b", Local: netip.MustParseAddr("198.18.0.1"), Remote: netip.MustParseAddrPort("198.18.0.2:0"),
		LocalID: "edge-a", RemoteID: "edge-b", SecretFile: psk, Prefixes: prefixes("10.20.0.0/16", "fd00:20::/64"), ESPProposals: esp,
	}
	p.b.conn = Conn{
		Tunnel: "ams1", Peer: "a", Local: netip.MustParseAddr("198.18.0.2"), Remote: netip.MustParseAddrPort("198.18.0.1:0"),
		LocalID: "edge-b", RemoteID: "edge-a", SecretFile: psk, Prefixes: prefixes("10.10.0.0/16", "fd00:10::/64"), ESPProposals: esp,
	}
	p.wire = p.a.capture(t, "up0")
	for _, e := range []*end{p.a, p.b} {
		e.charon = startCharon(t, e.space, userspace)
		e.client = New(e.charon.socket, logTo(t))
		e.client.times.look = time.Second
		e.run(t)
	}
	return p
}

func logTo(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", b)
	}
	return len(b), nil
}

// run starts the supervision, which ends with the test or with stop, and waits until charon is there.
func (e *end) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	e.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		e.client.Run(ctx)
	}()
	t.Cleanup(e.stop)
	until(t, "charon answers", func() bool { return e.client.Ping(t.Context()) == nil })
}

// hears waits for an event and returns it.
func (e *end) hears(t *testing.T, kind EventKind) Event {
	t.Helper()
	var heard Event
	until(t, string(kind)+" is told", func() bool {
		for {
			select {
			case heard = <-e.client.Events():
				if heard.Kind == kind {
					return true
				}
			default:
				return false
			}
		}
	})
	return heard
}

func (e *end) load(t *testing.T) {
	t.Helper()
	if err := e.client.Load(t.Context(), e.conn); err != nil {
		t.Fatal(err)
	}
}

// status returns the state of the one connection that is loaded.
func (e *end) status(t *testing.T) Status {
	t.Helper()
	list, err := e.client.Status(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("status %+v, %v", list, err)
	}
	return list[0]
}

// up loads both ends and waits until they carry traffic.
func (p *pair) up(t *testing.T) {
	t.Helper()
	p.b.load(t)
	p.a.load(t)
	p.a.hears(t, PeerUp)
	p.b.hears(t, PeerUp)
	p.a.answers(t, "10.10.0.1", "10.20.0.1")
}

func newKey(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "psk")
	if err := keys.GeneratePSK(file); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTrafficCrossesATunnelOfCharonsAndOnlyEncrypted(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.up(t)
	p.a.child(t)
	for _, e := range []*end{p.a, p.b} {
		until(t, "one IKE_SA stands with one CHILD_SA", func() bool {
			s := e.status(t)
			return len(s.SAs) == 1 && len(s.SAs[0].Children) == 1
		})
	}
	p.a.answers(t, "10.10.0.1", "10.20.0.1")
	p.a.answers(t, "fd00:10::1", "fd00:20::1")
	if clear, wrapped, _ := p.wire.seen(t); clear != 0 || wrapped == 0 {
		t.Errorf("on the wire: %d frames in clear, %d of ESP in UDP", clear, wrapped)
	}
	s := p.a.status(t)
	if !s.Loaded || !s.Leads || s.Changed || len(s.SAs) != 1 || len(s.SAs[0].Children) != 1 {
		t.Fatalf("status of a: %+v", s)
	}
	sa, child := s.SAs[0], s.SAs[0].Children[0]
	if sa.State != "ESTABLISHED" || !sa.Initiator || sa.LocalID != "edge-a" || sa.RemoteID != "edge-b" || sa.Remote.Addr() != p.a.conn.Remote.Addr() {
		t.Errorf("IKE_SA %+v", sa)
	}
	if child.SPIIn == 0 || child.SPIOut == 0 || child.BytesOut == 0 || child.PacketsIn == 0 || child.Name != p.a.conn.Digest() || !child.Encapsulated {
		t.Errorf("CHILD_SA %+v", child)
	}
	if fmt.Sprint(child.LocalTS, child.RemoteTS) != "[10.10.0.0/16 fd00:10::/64] [10.20.0.0/16 fd00:20::/64]" {
		t.Errorf("selectors %v %v", child.LocalTS, child.RemoteTS)
	}
	if other := p.b.status(t).SAs[0].Children[0]; other.SPIIn != child.SPIOut || other.SPIOut != child.SPIIn {
		t.Errorf("SPIs %x %x here, %x %x there", child.SPIIn, child.SPIOut, other.SPIIn, other.SPIOut)
	}
	// The capture is not blind: the same bytes beside the tunnel are seen.
	p.a.answers(t, "198.18.0.1", "198.18.0.2")
	if clear, _, _ := p.wire.seen(t); clear == 0 {
		t.Error("the capture has not seen what was sent in clear")
	}
}
