//go:build vmguest

package guest

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// TestTheIngressObjectMakesCookiesThatThisKernelTakes connects through XDP to a listener of the box, with the settings that
// syn_cookie makes. No tcx is there to learn how the listener answers, so the test tells.
func TestTheIngressObjectMakesCookiesThatThisKernelTakes(t *testing.T) {
	box, client := newNode(t, netns.New), newNode(t, netns.New)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	if err := box.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "c0", PeerNamespace: netlink.NsFd(client.ns)}); err != nil {
		t.Fatal(err)
	}
	box.do(t, func() error {
		return settings("net/ipv4/tcp_syncookies=2", "net/ipv4/tcp_timestamps=2", "net/ipv6/conf/all/accept_dad=0", "net/ipv6/conf/up0/accept_dad=0")
	})
	client.do(t, func() error { return settings("net/ipv6/conf/all/accept_dad=0", "net/ipv6/conf/c0/accept_dad=0") })
	box.setUp(t, "up0", "198.18.0.1/24", "fd00:18::1/64")
	client.setUp(t, "c0", "198.18.0.2/24", "fd00:18::2/64")
	client.do(t, passesAll)

	dir := filepath.Join("/sys/fs/bpf", "cookies")
	var servers []netip.AddrPort
	for _, a := range []string{"198.18.0.1", "fd00:18::1"} {
		at := netip.AddrPortFrom(netip.MustParseAddr(a), 443)
		servers = append(servers, at)
		box.do(t, func() error { return echoing(t, at) })
	}
	box.do(t, func() error { return protect(dir, servers) })
	t.Cleanup(func() { _ = pin.At(dir).RemoveAll() })
	for _, at := range servers {
		connectsByCookie(t, box, client, dir, at, 7)
	}
	client.do(t, func() error { return settings("net/ipv4/tcp_timestamps=0") })
	for _, at := range servers {
		connectsByCookie(t, box, client, dir, at, 0)
	}
}

func settings(list ...string) error {
	for _, one := range list {
		path, value, _ := strings.Cut(one, "=")
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// passesAll puts a program on c0: the other end of a veth takes what XDP sends only then.
func passesAll() error {
	const xdpPass = 2
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
	if err != nil {
		return err
	}
	c0, err := net.InterfaceByName("c0")
	if err != nil {
		return err
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: c0.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return err
	}
	return l.Pin("/sys/fs/bpf/c0")
}

func echoing(t *testing.T, at netip.AddrPort) error {
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(conn, conn); conn.Close() }()
		}
	}()
	return nil
}

func protect(dir string, servers []netip.AddrPort) error {
	g := xdp.Generation{FlowSlots: 1024, SYNListeners: servers,
		Ingress: classify.Policy{Name: "ingress", Default: classify.Accept, Rules: []classify.Rule{{ID: 1, Name: "flood", Protocol: 6,
			Ports: []classify.PortRange{{First: 443, Last: 443}}, Action: classify.SYNCookie}}}}
	want := xdp.State{Interfaces: []xdp.Interface{{Name: "up0", Mode: xdp.Native}}, Generation: g, Digest: g.Digest()}
	s := xdp.New(slog.New(slog.NewTextHandler(os.Stdout, nil)), xdp.Options{BPFDir: dir})
	have, err := s.Observe(context.Background())
	if err != nil {
		return err
	}
	for _, op := range s.Diff(have, want) {
		if err := s.Apply(context.Background(), op); err != nil {
			return err
		}
	}
	return nil
}

// connectsByCookie first connects through the kernel, and learns the listener's window scale as tcx would; then by cookies.
func connectsByCookie(t *testing.T, box, client *node, dir string, at netip.AddrPort, options uint8) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin.At(dir).StateMapPath("syn-listeners", 2), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	key := abi.SYNListenerKey{Addr: at.Addr().As16()}
	binary.BigEndian.PutUint16(key.Port[:], at.Port())
	if err := m.Put(key, abi.SYNListener{}); err != nil {
		t.Fatal(err)
	}
	scale, _ := exchange(t, client, at)
	later := uint64(time.Hour) * 1000
	if err := m.Put(key, abi.SYNListener{PassedNs: later, AnsweredNs: later, MSS: 1400, Window: 64240, WindowScale: scale, Flags: 7}); err != nil {
		t.Fatal(err)
	}
	before := cookiesReceived(t, box)
	const connections = 20
	for range connections {
		got, said := exchange(t, client, at)
		if said != options || got != scale && options != 0 {
			t.Fatalf("%s: options %#x and window scale %d, want %#x and %d", at, said, got, options, scale)
		}
	}
	if got := cookiesReceived(t, box) - before; got != connections {
		t.Errorf("%s: the kernel took %d cookies of %d connections", at, got, connections)
	}
	t.Logf("%s: %d connections by cookies, options %#x, window scale %d", at, connections, options, scale)
}

// exchange echoes half a megabyte and returns the listener's window scale and the options that were agreed on.
func exchange(t *testing.T, from *node, at netip.AddrPort) (scale, options uint8) {
	t.Helper()
	from.do(t, func() error {
		conn, err := net.DialTimeout("tcp", at.String(), 20*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(60 * time.Second))
		sent, heard := make([]byte, 500_000), make([]byte, 500_000)
		go conn.Write(sent)
		if _, err := io.ReadFull(conn, heard); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		return raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil {
				return
			}
			options = info.Options & 7
			scale = *(*byte)(unsafe.Add(unsafe.Pointer(info), 6)) & 15 // tcpi_snd_wscale
		})
	})
	return scale, options
}

func cookiesReceived(t *testing.T, n *node) (got int) {
	t.Helper()
	n.do(t, func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netstat")
		if err != nil {
			return err
		}
		lines := strings.Split(string(text), "\n")
		values := strings.Fields(lines[1])
		for i, name := range strings.Fields(lines[0]) {
			if name == "SyncookiesRecv" {
				_, err = fmt.Sscan(values[i], &got)
			}
		}
		return err
	})
	return got
}
