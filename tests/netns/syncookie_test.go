package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"sluice/cmd/lab"
)

const cookiePort = 8080

// newProtected is a gateway whose own port 8080 and its workloads' are behind syn_cookie.
func newProtected(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.edit("      - {name: web, to: [web-1, web-2], protocol: tcp, ports: [80, 443], action: accept}\n",
		"      - {name: web-flood, to: [self, web-1, web-2], protocol: tcp, ports: [80, 8080], action: syn_cookie}\n")
	s.write(strings.ReplaceAll(s.file, "ports: [80], action: accept", "ports: [80, 8080], action: accept"))
	s.takesXDPAnswers()
	if err := s.Workload(2).Sysctl("net/ipv4/tcp_sack", "0"); err != nil { // as after CVE-2019-11477
		t.Fatal(err)
	}
	s.start()
	s.established()
	return s
}

// takesXDPAnswers lets the ToR take what XDP sends: the other end of a veth needs an XDP program for it. (With GRO alone Linux
// 6.18 puts the frame into the ring and wakes nobody.)
func (s *site) takesXDPAnswers() {
	s.t.Helper()
	const xdpPass = 2
	err := s.ToR.Do(func() error {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
		if err != nil {
			return err
		}
		defer program.Close()
		device, err := net.InterfaceByName("gateway")
		if err != nil {
			return err
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: device.Index, Flags: link.XDPDriverMode})
		if err == nil {
			s.t.Cleanup(func() { _ = l.Close() })
		}
		return err
	})
	if err != nil {
		s.t.Fatalf("a program at the ToR's end: %v", err)
	}
}

// echoServer is a listener whose accepted connections a test can look at.
type echoServer struct {
	net.Listener
	accepted chan *net.TCPConn
	count    atomic.Int64
}

// serveEcho listens in a namespace until it is closed. control may set options of the socket.
func (s *site) serveEcho(ns *lab.Namespace, at netip.AddrPort, options ...func(fd int) error) *echoServer {
	s.t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		for _, set := range options {
			if e := c.Control(func(fd uintptr) { err = set(int(fd)) }); e != nil || err != nil {
				return errors.Join(e, err)
			}
		}
		return nil
	}}
	config.SetMultipathTCP(false)
	e := &echoServer{accepted: make(chan *net.TCPConn, 1000)}
	err := ns.Do(func() (err error) {
		e.Listener, err = config.Listen(s.t.Context(), "tcp", at.String())
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = e.Close() })
	go func() {
		for {
			conn, err := e.Accept()
			if err != nil {
				return
			}
			e.count.Add(1)
			e.accepted <- conn.(*net.TCPConn)
			go func() { _, _ = io.Copy(conn, conn) }()
		}
	}()
	return e
}

func reusePort(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
func smallBuffer(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 100_000)
}

func info(t *testing.T, conn net.Conn) *unix.TCPInfo {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return got
}

// Of tcpi_options (linux/tcp.h).
const (
	optTimestamps = 1
	optSACK       = 2
	optWScale     = 4
)

// scales are the window scales of a connection. Go's TCPInfo leaves the bit field out of its names.
func scales(i *unix.TCPInfo) (snd, rcv uint8) {
	b := *(*byte)(unsafe.Add(unsafe.Pointer(i), 6)) // snd_wscale : 4, rcv_wscale : 4 behind six bytes
	return b & 15, b >> 4
}

func (s *site) dial(from *lab.Namespace, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	return from.Dial(ctx, "tcp", to.String())
}

// byCookie connects until XDP has answered one of the SYNs, and returns that connection. Every one on the way must be made.
func (s *site) byCookie(from *lab.Namespace, to netip.AddrPort) net.Conn {
	s.t.Helper()
	for range 20 {
		before := s.packets("xdp", "eth0", "syn-cookie")
		conn, err := s.dial(from, to)
		if err != nil {
			s.t.Fatalf("connect to %s: %v", to, err)
		}
		s.t.Cleanup(func() { _ = conn.Close() })
		// A SYN that was sent again may have been answered by the kernel.
		if s.packets("xdp", "eth0", "syn-cookie") > before && info(s.t, conn).Total_retrans == 0 {
			return conn
		}
		s.carries(conn, 100)
	}
	s.t.Fatalf("XDP answered no SYN to %s", to)
	return nil
}

// carries sends bytes through an echo server.
func (s *site) carries(conn net.Conn, length int) {
	s.t.Helper()
	if err := echoed(conn, length); err != nil {
		s.t.Fatalf("%s: %v", conn.RemoteAddr(), err)
	}
}

func echoed(conn net.Conn, length int) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	sent, heard := bytes.Repeat([]byte("sluice"), length/6+1), make([]byte, (length/6+1)*6)
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		wrote <- err
	}()
	if _, err := io.ReadFull(conn, heard); err != nil {
		return errors.Join(err, <-wrote)
	}
	if !bytes.Equal(sent, heard) {
		return errors.New("other bytes came back")
	}
	return <-wrote
}

// of is the server's side of a connection.
func (e *echoServer) of(t *testing.T, conn net.Conn) *net.TCPConn {
	t.Helper()
	for {
		select {
		case c := <-e.accepted:
			if c.RemoteAddr().String() == conn.LocalAddr().String() {
				return c
			}
		case <-time.After(patience):
			t.Fatalf("the listener did not accept the connection of %s", conn.LocalAddr())
		}
	}
}

func TestTheKernelCompletesWhatXDPAnsweredWithACookie(t *testing.T) {
	t.Parallel()
	s := newProtected(t)
	web := s.Workload(1)
	servers := []struct {
		name string
		at   netip.Addr
		ns   *lab.Namespace
		set  []func(int) error
	}{
		{"the box", lab.Gateway4, s.Gateway.Namespace, nil},
		{"the box over IPv6", lab.Gateway6, s.Gateway.Namespace, []func(int) error{smallBuffer}},
		{"a workload", lab.Web4[0], web, []func(int) error{smallBuffer}},
		{"a workload over IPv6", lab.Web6[0], web, nil},
		{"a group of listeners", lab.Web4[1], s.Workload(2), []func(int) error{reusePort}},
	}
	listening := map[netip.Addr]*echoServer{}
	for _, v := range servers {
		at := netip.AddrPortFrom(v.at, cookiePort)
		listening[v.at] = s.serveEcho(v.ns, at, v.set...)
		if v.at == lab.Web4[1] {
			listening[netip.Addr{}] = s.serveEcho(v.ns, at, v.set...)
		}
	}
	for _, v := range servers[:4] {
		conn := s.byCookie(s.Client, netip.AddrPortFrom(v.at, cookiePort))
		s.carries(conn, 3_000_000)
		ours, theirs := info(t, conn), info(t, listening[v.at].of(t, conn))
		const all = optTimestamps | optSACK | optWScale
		if ours.Options&all != all || theirs.Options&all != all {
			t.Errorf("%s: options %#x at the client, %#x at the listener", v.name, ours.Options, theirs.Options)
		}
		oursSnd, oursRcv := scales(ours)
		theirsSnd, theirsRcv := scales(theirs)
		if oursSnd != theirsRcv || oursRcv != theirsSnd || oursSnd == 0 {
			t.Errorf("%s: the client scales by %d and %d, the listener by %d and %d", v.name, oursSnd, oursRcv, theirsSnd, theirsRcv)
		}
		t.Logf("%s: window scales %d %d, MSS %d/%d, retransmits %d", v.name, oursSnd, oursRcv, ours.Snd_mss, theirs.Snd_mss, ours.Total_retrans)
	}
	group := servers[4]
	for range 30 {
		conn := s.byCookie(s.Client, netip.AddrPortFrom(group.at, cookiePort))
		s.carries(conn, 100)
		if ours := info(t, conn); ours.Options&(optTimestamps|optSACK|optWScale) != optTimestamps|optWScale {
			t.Errorf("%s, without SACK: options %#x at the client", group.name, ours.Options)
		}
	}
	one, other := listening[group.at].count.Load(), listening[netip.Addr{}].count.Load()
	if one == 0 || other == 0 {
		t.Errorf("of a group of two listeners one accepted %d, the other %d", one, other)
	}
	if got := s.packets("xdp", "eth0", "syn-cookie-pass"); got == 0 {
		t.Error("nothing was passed")
	}

	s.takesClientsThatOfferLess(listening)
	s.refusesAClosedPort()
	s.settingsAreGivenBack()
}

// takesClientsThatOfferLess: without timestamps a cookie keeps an MSS alone.
func (s *site) takesClientsThatOfferLess(listening map[netip.Addr]*echoServer) {
	s.t.Helper()
	const all = optTimestamps | optSACK | optWScale
	for _, c := range []struct {
		setting string
		options uint8
		servers []netip.Addr
	}{
		{"tcp_timestamps", 0, []netip.Addr{lab.Gateway4, lab.Gateway6, lab.Web4[0], lab.Web6[0]}},
		{"tcp_sack", all &^ optSACK, []netip.Addr{lab.Gateway4, lab.Web6[0]}},
		{"tcp_window_scaling", all &^ optWScale, []netip.Addr{lab.Gateway6, lab.Web4[0]}},
	} {
		if err := s.Client.Sysctl("net/ipv4/"+c.setting, "0"); err != nil {
			s.t.Fatal(err)
		}
		for _, server := range c.servers {
			conn := s.byCookie(s.Client, netip.AddrPortFrom(server, cookiePort))
			s.carries(conn, 300_000)
			ours, theirs := info(s.t, conn), info(s.t, listening[server].of(s.t, conn))
			if ours.Options&all != c.options || theirs.Options&all != c.options {
				s.t.Errorf("%s, %s off: options %#x at the client, %#x at the listener", server, c.setting, ours.Options, theirs.Options)
			}
			if ours.Snd_mss < 1200 || theirs.Snd_mss < 1200 {
				s.t.Errorf("%s, %s off: MSS %d and %d", server, c.setting, ours.Snd_mss, theirs.Snd_mss)
			}
		}
		if err := s.Client.Sysctl("net/ipv4/"+c.setting, "1"); err != nil {
			s.t.Fatal(err)
		}
	}
}

// refusesAClosedPort: where nobody listens the kernel says so.
func (s *site) refusesAClosedPort() {
	s.t.Helper()
	for _, at := range []netip.AddrPort{netip.AddrPortFrom(lab.Gateway4, 80), netip.AddrPortFrom(lab.Web6[1], cookiePort)} {
		for range 5 {
			if _, err := s.dial(s.Client, at); !errors.Is(err, unix.ECONNREFUSED) {
				s.t.Errorf("%s, where nobody listens: %v", at, err)
			}
		}
	}
}

func (s *site) settingsAreGivenBack() {
	s.t.Helper()
	values := func() string {
		var out []string
		for _, ns := range []*lab.Namespace{s.Gateway.Namespace, s.Workload(1), s.Workload(2)} {
			out = append(out, strings.Fields(s.must(ns, "sysctl -n net.ipv4.tcp_syncookies net.ipv4.tcp_timestamps"))...)
		}
		return strings.Join(out, " ")
	}
	if got := values(); got != "2 2 2 2 2 2" {
		s.t.Errorf("under syn_cookie the settings are %s", got)
	}
	s.edit("action: syn_cookie", "action: accept")
	s.apply()
	if got := values(); got != "1 1 1 1 1 1" {
		s.t.Errorf("afterwards the settings are %s", got)
	}
}

func TestAListenerThatStartsAnewIsReachedWithinSeconds(t *testing.T) {
	t.Parallel()
	s := newProtected(t)
	at := netip.AddrPortFrom(lab.Web4[0], cookiePort)
	first := s.serveEcho(s.Workload(1), at)
	s.carries(s.byCookie(s.Client, at), 100)
	_ = first.Close()
	s.serveEcho(s.Workload(1), at) // it has sent no cookie of its own yet
	begin, tries := time.Now(), 0
	eventually(t, func() error {
		tries++
		conn, err := s.dial(s.Client, at)
		if err != nil {
			return err
		}
		defer conn.Close()
		return echoed(conn, 100)
	})
	t.Logf("after %d connections, %s", tries, time.Since(begin))
	s.carries(s.byCookie(s.Client, at), 100)
}

func TestUnderAFloodOfSYNsNewConnectionsAreMade(t *testing.T) {
	t.Parallel()
	s := newProtected(t)
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	ctx, cancel := context.WithCancel(t.Context())
	var sent lab.Flooded
	done := make(chan error, 1)
	go func() {
		var err error
		sent, err = lab.Flood{Rate: 20_000, Duration: 2 * time.Second}.Run(ctx, s.Site)
		done <- err
	}()
	answered, passed := s.packets("xdp", "eth0", "syn-cookie"), s.packets("xdp", "eth0", "syn-cookie-pass")
	made, worst := 0, time.Duration(0)
	var failed []error
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
			begin := time.Now()
			for i, server := range []netip.Addr{lab.Web4[0], lab.Web6[0], lab.Web4[1]} {
				if err := s.getWithin(patience, s.Client, server, 80, fmt.Sprintf("web-%d", i/2+1)); err != nil {
					failed = append(failed, err)
				}
				made++
			}
			worst = max(worst, time.Since(begin))
		}
	}
	cancel()
	answered, passed = s.packets("xdp", "eth0", "syn-cookie")-answered, s.packets("xdp", "eth0", "syn-cookie-pass")-passed
	t.Logf("%d packets of the flood, %d SYNs answered, %d packets passed, %d requests, the slowest three %s", sent.Packets, answered, passed, made, worst)
	// A queue that the flood keeps full may drop a SYN and its repetitions: the request is made when the flood has ended, at the
	// latest. (One in 3,000 hung: a port that was used again, which XDP did not leave to the listener. See reuse_test.go.)
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failed), made, errors.Join(failed...))
	}
	if answered < sent.Packets/8 {
		t.Errorf("of %d packets of the flood only %d SYNs were answered", sent.Packets, answered)
	}
}
