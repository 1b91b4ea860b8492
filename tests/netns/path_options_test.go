package netns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cmd/lab"
)

// TestIPv4OptionsAreTheKernels: a router that meets one has something to write into it or to refuse, and the kernel does that.
func TestIPv4OptionsAreTheKernels(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{})
	for _, c := range []struct {
		from    *lab.Namespace
		to      netip.Addr
		link    string
		gateway []string
	}{
		{p.Workload(1), lab.Client4, "web-1", []string{"169.254.1.1", "198.18.0.2"}},
		{p.Client, lab.Web4[0], "eth0", []string{"169.254.1.1", "198.18.0.2"}},
		{p.Workload(1), lab.Web4[1], "web-1", []string{"169.254.1.1", "198.18.0.2"}},
	} {
		options := "tc " + c.link + " stack-options"
		p.moves(func() {
			r := p.in(c.from, "ping", "-n", "-c1", "-W2", "-R", c.to.String())
			if r.code != 0 || !containsAny(r.out, c.gateway) {
				t.Errorf("%s asks who routes to %s: %s%s", c.from.Name, c.to, r.out, r.err)
			}
			r = p.in(c.from, "ping", "-n", "-c1", "-W2", "-T", "tsandaddr", c.to.String())
			if r.code != 0 || !containsAny(r.out, c.gateway) {
				t.Errorf("%s asks for the time on the way to %s: %s%s", c.from.Name, c.to, r.out, r.err)
			}
		})
		if n := p.packets("tc", c.link, "stack-options"); n < 2 {
			t.Errorf("%s counted %d", options, n)
		}
	}
	// The sender chooses the way: the kernel refuses, wherever it leads. By the LAN, which has no other router in front.
	for _, server := range []netip.Addr{lab.Web4[1], lab.Web4[0]} {
		heard := p.hear(p.Workload(2), netip.AddrPortFrom(lab.Web4[1], 33440+uint16(server.As4()[3])))
		source := append([]byte{131, 7, 4}, lab.Web4[1].AsSlice()...) // LSRR (RFC 791 section 3.1)
		if err := p.withIPv4Options(p.lan, netip.AddrPortFrom(server, 33440+uint16(server.As4()[3])), source); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // nothing tells of what does not come
		if n := heard.total(); n != 0 {
			t.Errorf("%d source-routed datagrams came by %s", n, server)
		}
	}
	if n := p.packets("tc", "lan0", "stack-options"); n == 0 {
		t.Error("source-routed datagrams were not left to the kernel")
	}
}

// withIPv4Options sends datagrams with options.
func (p *pathSite) withIPv4Options(ns *lab.Namespace, to netip.AddrPort, options []byte) error {
	return ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, string(append(options, 0))); err != nil {
			return fmt.Errorf("set IPv4 options: %w", err)
		}
		for range 3 {
			if err := unix.Sendto(fd, []byte(strings.Repeat("x", 100)), 0, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
				return err
			}
		}
		return nil
	})
}
