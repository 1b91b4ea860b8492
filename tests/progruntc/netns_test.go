package progruntc_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/packet"
	"sluice/xdp/pin"
)

// awaitReason waits until an interface counted a reason.
func (s *site) awaitReason(t *testing.T, name string, reason abi.Reason) {
	t.Helper()
	awaitTrue(t, name+" counts "+reason.String(), func() bool { return s.counted(t, name)[reason] > 0 })
}

func TestDefaultDropEverywhereLeavesABoxThatWorks(t *testing.T) {
	s := newSite(t, judged)
	for _, v := range []struct{ client, self, w1, w2 string }{{client4, self4, w1v4, w2v4}, {client6, self6, w1v6, w2v6}} {
		s.workload1.serveTCP(t, v.w1, 80)
		s.workload1.serveTCP(t, v.w1, 81)
		s.workload2.serveTCP(t, v.w2, 80)
		s.outside.serveTCP(t, v.client, 8080)
		s.outside.serveUDP(t, v.client, 53)
		s.outside.serveUDP(t, v.client, 54)

		// From outside to a workload: what both policies let in.
		s.outside.reaches(t, "tcp", v.client, v.w1, 80)
		s.outside.doesNotReach(t, "tcp", v.client, v.w1, 81)
		s.outside.doesNotReach(t, "tcp", v.client, v.w2, 80)

		// A workload's own: what its egress policy lets out, with the answers.
		s.workload1.reaches(t, "tcp", v.w1, v.client, 8080)
		s.workload1.reaches(t, "udp", v.w1, v.client, 53)
		s.workload2.doesNotReach(t, "tcp", v.w2, v.client, 8080)

		// The box's own: a rule lets it out, and the answers in.
		s.gateway.reaches(t, "udp", "", v.client, 53)
		s.gateway.reaches(t, "tcp", "", v.client, 8080)
		s.gateway.doesNotReach(t, "udp", "", v.client, 54)

		// Between workloads: the matrix denies it.
		s.workload2.doesNotReach(t, "tcp", v.w2, v.w1, 80)
	}
	if n := s.counted(t, "uplink"); n[abi.ReasonDefaultDrop] == 0 || n[abi.ReasonDelivered] == 0 {
		t.Errorf("the uplink counted %v", n)
	}
	if n := s.counted(t, "wl2"); n[abi.ReasonForwardDenied] == 0 || n[abi.ReasonDefaultDrop] == 0 {
		t.Errorf("workload two's interface counted %v", n)
	}
	flows, err := s.Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(flows, func(f tc.Flow) bool {
		return f.Origin == "outside" && f.Protocol == 6 && f.Src.String() == client6 && f.Destination() == "[fd00:1::10]:80" && f.State != "new"
	}) {
		t.Errorf("the flows do not show the client's: %v", flows)
	}
}

func TestAForwardEntryLetsWorkloadsTalk(t *testing.T) {
	s := newSite(t)
	s.workload1.serveTCP(t, w1v4, 80)
	s.workload1.serveTCP(t, w1v6, 80)
	s.workload2.doesNotReach(t, "tcp", w2v4, w1v4, 80)
	want := baseline()
	open(tc.RoleWorkload, tc.RoleWorkload)(&want)
	s.converge(t, want)
	s.workload2.reaches(t, "tcp", w2v4, w1v4, 80)
	s.workload2.reaches(t, "tcp", w2v6, w1v6, 80)
	s.converge(t, baseline())
	s.workload2.doesNotReach(t, "tcp", w2v4, w1v4, 80)
}

// TestAGenerationThatACrashOrAResizeSpoiledIsLoadedAnew: half of its pins are gone, or its flow tables are not the
// pinned ones.
func TestAGenerationThatACrashOrAResizeSpoiledIsLoadedAnew(t *testing.T) {
	s := newSite(t)
	pins, err := filepath.Glob(filepath.Join(s.dir, "gen", "tc-*", "prog-tunnel_*")) // the spare's as well: nothing is to be recast
	if err != nil || len(pins) < 2 {
		t.Fatalf("pins %v: %v", pins, err)
	}
	for _, p := range pins {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	if done := s.converge(t, baseline()); len(done) == 0 {
		t.Errorf("after half of the pins went: %q", done)
	}
	now, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath("fresh-in", 3), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer now.Close()
	other, err := pin.At(s.dir).StateMap(&ebpf.MapSpec{Type: now.Type(), KeySize: now.KeySize(), ValueSize: now.ValueSize(),
		Flags: now.Flags(), MaxEntries: 2 * now.MaxEntries()}, "fresh-in", 3)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	if done := s.converge(t, baseline()); len(done) == 0 {
		t.Errorf("after the flow table was replaced: %q", done)
	}
	s.workload1.serveTCP(t, w1v4, 80)
	s.outside.reaches(t, "tcp", client4, w1v4, 80)
}

// TestADeliveredFrameHasOneHopLess looks at the bytes on the workload's own interface.
func TestADeliveredFrameHasOneHopLess(t *testing.T) {
	s := newSite(t)
	in, out := s.outside.open(t, "eth0"), s.workload1.open(t, "eth0")
	for _, line := range []string{
		"tcp 198.51.100.7:9999 > 10.0.1.10:80 len=200 ttl=9", "tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80 len=200 ttl=9",
	} {
		spec, err := packet.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		spec.DstMAC = s.gateway.hardwareAddr(t, "uplink")
		frame, err := spec.Frame()
		if err != nil {
			t.Fatal(err)
		}
		in.send(t, frame)
		got := out.await(t, func(f []byte) bool { return len(f) == len(frame) })
		if want := moved(frame, true)[14:]; !bytes.Equal(want, got[14:]) {
			t.Errorf("%s\narrived as %x\nwant       %x", line, got[14:], want)
		}
	}
	if n := s.counted(t, "uplink"); n[abi.ReasonDelivered] != 2 {
		t.Errorf("the uplink counted %v", n)
	}
}

// TestAFrameWithAPriorityTagIsJudged: the kernel takes VID 0 for no tag, so a workload could hide behind it.
func TestAFrameWithAPriorityTagIsJudged(t *testing.T) {
	s := newSite(t)
	in := s.workload1.open(t, "eth0")
	for line, reason := range map[string]abi.Reason{
		"udp 192.0.2.200:1 > 198.51.100.7:53 vlan=0": abi.ReasonWorkloadSpoofed,
		"udp 192.0.2.200:1 > 198.51.100.7:53 vlan=5": abi.ReasonVLANChild, // which the kernel drops
	} {
		spec, err := packet.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		spec.DstMAC = s.gateway.hardwareAddr(t, "wl1")
		frame, err := spec.Frame()
		if err != nil {
			t.Fatal(err)
		}
		in.send(t, frame)
		s.awaitReason(t, "wl1", reason)
	}
	if n := s.counted(t, "uplink"); len(n) != 0 {
		t.Errorf("it left by the uplink: %v", n)
	}
}

func TestLargeTransfersKeepTheirSegments(t *testing.T) {
	s := newSite(t)
	s.workload1.serveTCP(t, w1v4, 80)
	s.outside.serveTCP(t, client6, 8080)
	for _, test := range []struct {
		from           namespace
		source, to     string
		port           uint16
		hook           string
		reason, answer abi.Reason
	}{
		{s.outside, client4, w1v4, 80, "uplink", abi.ReasonDelivered, abi.ReasonForwarded},
		{s.workload1, w1v6, client6, 8080, "wl1", abi.ReasonForwarded, abi.ReasonDelivered},
	} {
		before, err := s.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c, err := test.from.dial("tcp", test.source, test.to, test.port, deadline)
		if err != nil {
			t.Fatal(err)
		}
		const size = 32 << 20
		if err := transfer(c, size, nil); err != nil {
			t.Fatal(err)
		}
		c.Close()
		after, err := s.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := reasonsOf(after, test.hook)[test.reason]
		was := reasonsOf(before, test.hook)[test.reason]
		packets, octets := n.Packets-was.Packets, n.Bytes-was.Bytes
		if octets < size || octets/packets < 3000 {
			t.Errorf("%s: %d packets of %d bytes in all by the fast path: it should take whole GSO packets", test.hook, packets, octets)
		}
		if mtu := reasonsOf(after, test.hook)[abi.ReasonStackMTU].Packets; mtu != 0 {
			t.Errorf("%s: %d packets were left to the kernel as too large", test.hook, mtu)
		}
	}
}

func reasonsOf(c tc.Counters, name string) map[abi.Reason]tc.Count {
	for _, i := range c.Interfaces {
		if i.Name == name {
			return i.Reasons
		}
	}
	return nil
}

// TestSegmentsThatDoNotFitAreTheKernels: a workload with a large MTU sends by GSO to a smaller uplink.
func TestSegmentsThatDoNotFitAreTheKernels(t *testing.T) {
	s := newSite(t)
	for name, n := range map[string]namespace{"wl1": s.gateway, "eth0": s.workload1} {
		setMTU(t, n, name, 9000)
	}
	s.outside.do(t, func() error { // the server announces an MSS that does not betray the path's MTU
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		_, to, err := net.ParseCIDR("10.0.1.0/24")
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: to, Gw: net.ParseIP(self4), AdvMSS: 8960})
	})
	s.outside.serveTCP(t, client4, 8080)
	c, err := s.workload1.dial("tcp", w1v4, client4, 8080, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := transfer(c, 4<<20, nil); err != nil {
		t.Fatalf("path MTU discovery does not work for GSO packets: %v", err)
	}
	if n := s.counted(t, "wl1"); n[abi.ReasonStackMTU] == 0 {
		t.Errorf("nothing was too large: %v", n)
	}
}

func setMTU(t *testing.T, n namespace, name string, mtu int) {
	t.Helper()
	n.do(t, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, mtu)
	})
}

func TestATooLargePacketIsAnsweredByTheKernel(t *testing.T) {
	s := newSite(t, func(want *tc.State) {
		want.Generation.Workloads[0].Ingress.Rules[0].Protocol = 17
	})
	setMTU(t, s.gateway, "wl1", 1300)
	for _, v := range []struct {
		source, to  string
		level, name int
		value       int
	}{
		{client4, w1v4, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO},
		{client6, w1v6, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO},
	} {
		c, err := s.outside.dial("udp", v.source, v.to, 80, deadline)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var set error
		if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), v.level, v.name, v.value) }); err != nil || set != nil {
			t.Fatal(err, set)
		}
		awaitTrue(t, "the sender learns the MTU towards "+v.to, func() bool {
			_, err := c.Write(make([]byte, 1400))
			return errors.Is(err, unix.EMSGSIZE)
		})
	}
	if n := s.counted(t, "uplink"); n[abi.ReasonStackMTU] == 0 || n[abi.ReasonICMPError] == 0 {
		t.Errorf("the uplink counted %v", n)
	}
}

func TestTheFirstPacketToAnUnknownNeighbourArrives(t *testing.T) {
	s := newSite(t)
	s.outside.serveUDP(t, client4, 53)
	s.gateway.do(t, func() error {
		l, err := netlink.LinkByName("uplink")
		if err != nil {
			return err
		}
		known, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, n := range known {
			if n.IP.Equal(net.ParseIP("198.18.0.1")) {
				if err := netlink.NeighDel(&n); err != nil {
					return err
				}
			}
		}
		return nil
	})
	s.counted(t, "wl1")
	s.workload1.reaches(t, "udp", w1v4, client4, 53) // one datagram, sent once
	if n := s.counted(t, "wl1"); n[abi.ReasonStackNeighbour] != 1 {
		t.Errorf("workload one's interface counted %v", n)
	}
}

// TestATunnelWithoutEthernetCarriesBothWays reads and writes bare packets at the far side of a TUN.
func TestATunnelWithoutEthernetCarriesBothWays(t *testing.T) {
	s := newSite(t)
	tun := s.openTUN(t)
	c, err := s.workload1.dial("udp", w1v4, "10.21.0.9", 53, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buffer := make([]byte, 65536)
	awaitTrue(t, "a datagram reaches the far side of tun0", func() bool {
		// The queue of a TUN that was opened just now opens a moment later; until then the kernel drops.
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := tun.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for {
			size, err := tun.Read(buffer[:cap(buffer)])
			if err != nil {
				return false
			}
			if buffer[0]>>4 == 4 && size == 20+8+5 { // not the kernel's neighbour discovery
				buffer = buffer[:size]
				return true
			}
		}
	})
	if checksum(buffer[:20]) != 0 || buffer[8] != 63 {
		t.Errorf("arrived with TTL %d and checksum %x off: %x", buffer[8], checksum(buffer[:20]), buffer)
	}
	if n := s.counted(t, "tun0"); n[abi.ReasonJudged] == 0 || len(n) != 1 {
		t.Errorf("tun0 counted %v", n)
	}

	in := s.workload1.open(t, "eth0")
	sport := uint16(buffer[20])<<8 | uint16(buffer[21])
	spec := packet.Spec{Src: addrs("10.21.0.9")[0], Dst: addrs(w1v4)[0], Protocol: 17, SrcPort: 53, DstPort: sport}
	reply, err := spec.Frame()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tun.Write(reply[14:]); err != nil {
		t.Fatal(err)
	}
	got := in.await(t, func(f []byte) bool { return len(f) == len(reply) && f[14+9] == 17 })
	if want := moved(reply, true)[14:]; !bytes.Equal(want, got[14:]) {
		t.Errorf("the answer arrived as\n%x, want\n%x", got[14:], want)
	}
	if n := s.counted(t, "tun0"); n[abi.ReasonStackL3] != 1 {
		t.Errorf("tun0 counted %v", n)
	}
	if n := s.counted(t, "wl1"); n[abi.ReasonJudged] != 1 {
		t.Errorf("workload one's interface counted %v", n)
	}
}

func (s *site) openTUN(t *testing.T) *os.File {
	t.Helper()
	tun, err := openTUN("tun0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tun.Close() })
	return tun
}

// openTUN is the far side of a TUN of this thread's namespace, which is there: bare packets, one a call.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
