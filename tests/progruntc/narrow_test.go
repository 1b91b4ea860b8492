package progruntc_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/classify"
)

// What fits through the narrow tunnel. The other end of it believes in 1500 bytes, and nobody is told of what is lost.
const narrowMTU = 1300

const (
	far4, far6       = "10.21.0.9", "fd00:21::9"    // at the other end of tun0
	near4, near6     = "10.21.0.1", "fd00:21::1"    // the box's own
	farPort, webPort = 8080, 80                     // who listens where: policies of baseline let these in
	notReported      = "add table inet silence; " + // ICMP is filtered, as it is in many networks
		"add chain inet silence in { type filter hook input priority 0; }; " +
		"add rule inet silence in icmp type destination-unreachable drop; " +
		"add rule inet silence in icmpv6 type packet-too-big drop"
)

// narrow is the site with a host at the far end of tun0, on which nothing longer than narrowMTU arrives.
type narrow struct {
	*site
	far  namespace
	lost atomic.Int64 // packets that were too long for the relay
}

func newNarrow(t *testing.T, change ...func(*tc.State)) *narrow {
	t.Helper()
	between := func(s *tc.State) {
		self := &s.Generation.Self
		*self = append(*self, addrs(near4, near6)...)
		open := classify.Policy{Default: classify.Accept}
		s.Generation.Ingress, s.Generation.Egress, s.Generation.Strict = open, open, nil
		for i := range s.Generation.Workloads {
			s.Generation.Workloads[i].Ingress, s.Generation.Workloads[i].Egress = open, open
		}
		s.Generation.Matrix[tc.RoleTunnel][tc.RoleWorkload], s.Generation.Matrix[tc.RoleTunnel][tc.RoleDownstream] = true, true
	}
	n := &narrow{site: newSite(t, append([]func(*tc.State){between}, change...)...), far: newNamespace(t)}
	n.far.do(t, func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun9"}, Mode: netlink.TUNTAP_MODE_TUN})
	})
	n.relay(t)
	n.gateway.address(t, "tun0", near4+"/32", near6+"/128")
	n.gateway.route(t, "fd00:21::/64", "", "tun0")
	setMTU(t, n.gateway, "tun0", narrowMTU)
	n.far.address(t, "tun9", far4+"/16", far6+"/64")
	for _, prefix := range []string{"0.0.0.0/0", "::/0"} {
		n.far.route(t, prefix, "", "tun9")
	}
	for _, ns := range []namespace{n.far, n.workload1, n.lan} {
		ns.do(t, func() error {
			if out, err := exec.Command("nft", notReported).CombinedOutput(); err != nil {
				return fmt.Errorf("nft: %w: %s", err, out)
			}
			return sysctl("net/ipv4/tcp_mtu_probing", "0") // which finds out without ICMP, in its time
		})
	}
	return n
}

// relay carries packets between tun0 and the far end, as far as they fit.
func (n *narrow) relay(t *testing.T) {
	t.Helper()
	near := n.openTUN(t)
	var other *os.File
	n.far.do(t, func() (err error) {
		if other, err = openTUN("tun9"); err != nil {
			return err
		}
		return up("tun9")
	})
	t.Cleanup(func() { other.Close() })
	for from, to := range map[*os.File]*os.File{near: other, other: near} {
		go func() {
			buffer := make([]byte, 1<<16)
			for {
				size, err := from.Read(buffer)
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if size > narrowMTU {
					n.lost.Add(1)
				} else if err == nil {
					_, _ = to.Write(buffer[:size]) // the far end may be down by now
				}
			}
		}()
	}
}

// lane is one way through the tunnel: who dials whom. Both ends send.
type lane struct {
	name     string
	dials    namespace
	from, to string
	serves   namespace
	port     uint16
}

func (n *narrow) lanes() []lane {
	return []lane{
		{"a workload to the far end", n.workload1, w1v4, far4, n.far, farPort},
		{"a workload to the far end, IPv6", n.workload1, w1v6, far6, n.far, farPort},
		{"the far end to a workload", n.far, far4, w1v4, n.workload1, webPort},
		{"the far end to a workload, IPv6", n.far, far6, w1v6, n.workload1, webPort},
		{"a LAN to the far end, through the stack", n.lan, lan4, far4, n.far, farPort},
		{"the box itself to the far end", n.gateway, near4, far4, n.far, farPort},
		{"the box itself to the far end, IPv6", n.gateway, near6, far6, n.far, farPort},
		{"the far end to the box itself", n.far, far4, near4, n.gateway, farPort},
		{"the far end to the box itself, IPv6", n.far, far6, near6, n.gateway, farPort},
	}
}

func (n *narrow) serve(t *testing.T) {
	t.Helper()
	for _, server := range []struct {
		ns      namespace
		address string
		port    uint16
	}{{n.far, far4, farPort}, {n.far, far6, farPort}, {n.workload1, w1v4, webPort}, {n.workload1, w1v6, webPort},
		{n.gateway, near4, farPort}, {n.gateway, near6, farPort}} {
		server.ns.serveTCP(t, server.address, server.port)
	}
}

func TestTCPPassesANarrowTunnelThoughICMPIsFiltered(t *testing.T) {
	n := newNarrow(t, clamping)
	n.serve(t)
	for _, l := range n.lanes() {
		c, err := l.dials.dial("tcp", l.from, l.to, l.port, deadline)
		if err != nil {
			t.Errorf("%s: %v", l.name, err)
			continue
		}
		if err := transfer(c, 1<<20, nil); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
		c.Close()
		if lost := n.lost.Swap(0); lost != 0 {
			t.Errorf("%s: %d packets were too long", l.name, lost)
		}
	}
	// As the MTU is when a connection begins.
	setMTU(t, n.gateway, "tun0", 1200)
	c, err := n.workload1.dial("tcp", w1v4, far4, farPort, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if mss := tcpInfo(t, c).Snd_mss; mss > 1160 || mss < 1100 {
		t.Errorf("with an MTU of 1200 the segments are %d bytes", mss)
	}
}

// TestWithoutTheClampTCPStandsStill: whatever passes a narrow tunnel, that is, and is told nothing by its own interface.
func TestWithoutTheClampTCPStandsStill(t *testing.T) {
	n := newNarrow(t)
	n.serve(t)
	for _, l := range n.lanes()[:5] {
		c, err := l.dials.dial("tcp", l.from, l.to, l.port, deadline)
		if err != nil {
			t.Errorf("%s: %v", l.name, err)
			continue
		}
		// One segment is sent again, and is too long each time: for the relay, or for tun0, whose ICMP nobody hears.
		if _, err := c.Write(make([]byte, 1400)); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
		awaitTrue(t, l.name+": sent again and again", func() bool { return tcpInfo(t, c).Total_retrans >= 2 })
		_ = c.SetReadDeadline(time.Now())
		if size, err := io.ReadFull(c, make([]byte, 1400)); !errors.Is(err, os.ErrDeadlineExceeded) || size != 0 {
			t.Errorf("%s: %d bytes came back, %v", l.name, size, err)
		}
		c.Close()
	}
}

// tcpInfo is what the kernel knows of a connection.
func tcpInfo(t *testing.T, c net.Conn) (info *unix.TCPInfo) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return info
}
