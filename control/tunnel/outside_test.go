package tunnel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/tests/nstest"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// ownNamespace leaves the test's goroutine in a namespace with a veth pair and nothing else, which goes with the test.
func ownNamespace(t *testing.T) {
	t.Helper()
	nstest.Enter(t)
	for _, line := range []string{"link add eth0 type veth peer name peer0", "link set eth0 mtu 1500 up", "link set peer0 up",
		"addr add 198.18.0.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0 nodad"} {
		nstest.IP(t, line)
	}
}

func TestTheUnderlayIsTheSmallerOfLinkAndRoute(t *testing.T) {
	ownNamespace(t)
	u, err := NewUnderlay(7)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	to := addresses("198.18.0.2", "198.51.100.7", "203.0.113.7", "2001:db8::2", "2001:db8:9::7", "192.0.2.1")
	nstest.IP(t, "route add 198.51.100.0/24 via 198.18.0.2 mtu 1400")
	nstest.IP(t, "route add 2001:db8:9::/64 via 2001:db8::2 mtu 1380")
	nstest.IP(t, "route add 203.0.113.0/24 via 198.18.0.2 mtu 9000")
	nstest.IP(t, "route add 203.0.113.0/24 via 198.18.0.2 mtu 1300 table 99")
	look := func(want ...int) {
		t.Helper()
		got, err := u.MTU(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range to {
			if got[a] != want[i] {
				t.Errorf("%s: %d bytes, want %d", a, got[a], want[i])
			}
		}
	}
	look(1500, 1400, 1500, 1500, 1380, 0)
	nstest.IP(t, "rule add fwmark 7 lookup 99") // for what is encrypted alone
	look(1500, 1400, 1300, 1500, 1380, 0)
	nstest.IP(t, "link set eth0 mtu 1350")
	look(1350, 1350, 1300, 1350, 1350, 0)
	for name, alias := range map[string]string{"fra1": "sluice:fra1", "fra2": "sluice:fra1"} { // of which the second is not ours
		nstest.IP(t, "tuntap add "+name+" mode tun")
		nstest.IP(t, "link set "+name+" alias "+alias+" mtu 1280 up")
	}
	nstest.IP(t, "route add 198.51.100.7/32 dev fra1 proto 187")
	nstest.IP(t, "route add 192.0.2.1/32 dev fra2")
	look(1350, 0, 1300, 1350, 1350, 1280)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := u.MTU(ctx, to); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRoutesAndLinksThatChangeAreTold(t *testing.T) {
	ownNamespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told, err := WatchRoutes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{"route add 198.51.100.0/24 via 198.18.0.2", "link set eth0 mtu 1400", "route add 2001:db8:9::/64 via 2001:db8::2", "route del 198.51.100.0/24"} {
		nstest.IP(t, change)
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatalf("ip %s: nothing is told", change)
		}
	}
	var batch strings.Builder
	for i := range 2000 {
		batch.WriteString("route replace 198.51.100.0/24 via 198.18.0.2 metric " + strings.Repeat("1", 1+i%3) + "\n")
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	nstest.IP(t, "-batch "+file) // more than the socket holds
	count := 0
	for deadline := time.After(10 * time.Second); ; {
		select {
		case <-told:
			count++
			continue
		case <-time.After(3 * routesPause):
		case <-deadline:
			t.Error("it goes on without end")
		}
		break
	}
	if count == 0 || count > 4 {
		t.Errorf("2000 routes are told %d times", count)
	}
}

// TestRoutesIntoTunnelsAreNoNews reads what waits at a socket: first such routes alone, then another one behind them.
func TestRoutesIntoTunnelsAreNoNews(t *testing.T) {
	ownNamespace(t)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	// IPv6 gives itself routes at any time.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_IPV4_ROUTE - 1)}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		changes []string
		news    bool
	}{
		{[]string{"route add 10.20.0.0/16 dev eth0 proto 187", "route del 10.20.0.0/16"}, false},
		{[]string{"route add 10.20.0.0/16 dev eth0 proto 187", "route add 198.51.100.0/24 via 198.18.0.2"}, true},
		{[]string{"route del 198.51.100.0/24", "route del 10.20.0.0/16"}, true},
	} {
		for _, change := range c.changes {
			nstest.IP(t, change)
		}
		if got := news(uintptr(fd)); got != c.news {
			t.Errorf("%q: news %v, want %v", c.changes, got, c.news)
		}
	}
}

// serveDNS answers on an address of the namespace: A and AAAA of hub.example, and that there is nothing else.
// The first queries, as many as ignored, are lost.
func serveDNS(t *testing.T, address string, a, aaaa string, ignored int) (asked func() int) {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(address, "53"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	queries := make(chan struct{}, 1000)
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			queries <- struct{}{}
			if len(queries) <= ignored {
				continue
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			q := m.Questions[0]
			header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}
			switch {
			case q.Name.String() == "other.example.example.": // what search domains would make of it
				m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 99}}}}
			case q.Name.String() != "hub.example.":
				m.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeA && a != "":
				m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}}}
			case q.Type == dnsmessage.TypeAAAA && aaaa != "":
				m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(aaaa).As16()}}}
			}
			out, err := m.Pack()
			if err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return func() int { return len(queries) }
}

// The library looks up names on threads of its own choice, so a whole process has to be in the namespace.
func TestNamesAreAskedForAtTheServersThatAreWritten(t *testing.T) {
	const inside = "SLUICE_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=yes")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	nstest.IP(t, "link set lo up")
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("# a comment\nsearch example\nnameserver 127.53.0.2\nnameserver nonsense\nnameserver 127.53.0.3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var written []netip.Addr
	r := Resolver{File: file, Servers: func() []netip.Addr { return written }}
	first := serveDNS(t, "127.53.0.2", "198.51.100.7", "2001:db8::9", 0)
	serveDNS(t, "127.53.0.4", "198.51.100.8", "", 0)
	resolve := func(want ...string) {
		t.Helper()
		got, err := r.Resolve(t.Context(), hub)
		if err != nil || !sameSet(got, addresses(want...)) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	resolve("198.51.100.7", "2001:db8::9")
	written = addresses("127.53.0.4")
	resolve("198.51.100.8")
	written = addresses("127.53.0.9", "127.53.0.2") // nobody is at the first
	resolve("198.51.100.7", "2001:db8::9")
	lossy := serveDNS(t, "127.53.0.5", "198.51.100.9", "", 2)
	written = addresses("127.53.0.5") // both queries of the first try are lost
	resolve("198.51.100.9")
	if n := lossy(); n < 4 {
		t.Errorf("%d queries, want those of two tries", n)
	}
	before := first()
	written = addresses("127.53.0.2", "127.53.0.4")
	if got, err := r.Resolve(t.Context(), "other.example"); err == nil || !strings.Contains(err.Error(), "no such host") || !strings.Contains(err.Error(), "127.53.0.2") {
		t.Errorf("%v, %v", got, err)
	}
	if first() == before {
		t.Error("the first server was not asked")
	}
	written = nil
	for _, text := range []string{"", "search example\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Resolve(t.Context(), hub); err == nil || !strings.Contains(err.Error(), "node.dns") {
			t.Errorf("without a server: %v", err)
		}
	}
	r.File = file + ".gone"
	if _, err := r.Resolve(t.Context(), hub); err == nil || !strings.Contains(err.Error(), "node.dns") {
		t.Errorf("without a file: %v", err)
	}
}
