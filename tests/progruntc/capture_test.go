package progruntc_test

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/packet"
)

// captured is what a capture of the site took so far.
type captured struct {
	mu     sync.Mutex
	frames []xdp.Frame
}

func (s *site) capture(t *testing.T, f xdp.CaptureFilter) *captured {
	t.Helper()
	c := &captured{}
	begun, ended := make(chan struct{}), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		_, err := xdp.Capture(ctx, s.dir, f, 1_000_000, func() error { close(begun); return nil }, func(f xdp.Frame) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.frames = append(c.frames, f)
			return nil
		})
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-begun:
	case err := <-ended:
		ended <- err
		t.Fatalf("the capture does not begin: %v", err)
	}
	return c
}

// await returns the first frame that pleases.
func (c *captured) await(t *testing.T, what string, pleases func(xdp.Frame) bool) (found xdp.Frame) {
	t.Helper()
	awaitTrue(t, what+" is captured", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.IndexFunc(c.frames, pleases)
		if i >= 0 {
			found = c.frames[i]
		}
		return i >= 0
	})
	return found
}

// frameTo makes the frame of a line, for an interface of the gateway.
func (s *site) frameTo(t *testing.T, iface, line string) []byte {
	t.Helper()
	spec, err := packet.Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	spec.DstMAC = s.gateway.hardwareAddr(t, iface)
	frame, err := spec.Frame()
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// TestACaptureHasTheFramesOfTheWire: with the tags that the kernel takes off, and at most one hop less.
func TestACaptureHasTheFramesOfTheWire(t *testing.T) {
	s := newSite(t, judged)
	out, in := s.outside.open(t, "eth0"), s.workload1.open(t, "eth0")
	c := s.capture(t, xdp.CaptureFilter{Protocol: -1})
	for _, test := range []struct {
		from   *wire
		at     string
		line   string
		reason abi.Reason
		rule   uint32
		moved  bool
	}{
		{out, "uplink", "tcp 198.51.100.7:9999 > 10.0.1.10:80 len=200", abi.ReasonDelivered, w1Web, true},
		{out, "uplink", "tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80 len=1514", abi.ReasonDelivered, w1Web, true},
		{out, "uplink", "tcp 198.51.100.66:1 > 10.0.1.10:80", abi.ReasonRuleDrop, ingressBad, false},
		{out, "uplink", "udp 198.51.100.7:1 > 10.0.1.10:9", abi.ReasonDefaultDrop, 0, false},
		{out, "uplink", "udp 198.51.100.7:2 > 10.0.1.10:9 vlan=77", abi.ReasonVLANChild, 0, false},
		{in, "wl1", "udp 192.0.2.200:1 > 198.51.100.7:53 vlan=0", abi.ReasonWorkloadSpoofed, 0, false},
		{in, "wl1", "udp 10.0.1.10:4000 > 198.51.100.66:53", abi.ReasonRuleDrop, w1Bad, false},
	} {
		frame := s.frameTo(t, test.at, test.line)
		test.from.send(t, frame)
		want := frame
		if test.moved {
			want = moved(frame, true)
		}
		got := c.await(t, test.line, func(f xdp.Frame) bool { return bytes.Equal(f.Data, want) && f.Hook == abi.HookTcIngress })
		if got.Ifindex != index(t, test.at).Index || got.Reason != test.reason || got.Rule != test.rule || got.L3 || got.Len != len(frame) {
			t.Errorf("%s: captured as %+v", test.line, got)
		}
	}

	// What the box sends, as it leaves.
	conn, err := s.gateway.dial("udp", "", client4, 53, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("a question")); err != nil {
		t.Fatal(err)
	}
	question := func(f []byte) bool { return bytes.HasSuffix(f, []byte("a question")) }
	wire := out.await(t, question)
	got := c.await(t, "the question", func(f xdp.Frame) bool { return question(f.Data) })
	// The NIC fills the checksum in later, behind the hook.
	got.Data, wire = slices.Clone(got.Data), slices.Clone(wire)
	copy(got.Data[40:], []byte{0, 0})
	copy(wire[40:], []byte{0, 0})
	if got.Hook != abi.HookTcEgress || got.Reason != abi.ReasonRuleAccept || got.Rule != egressDNS || !bytes.Equal(got.Data, wire) {
		t.Errorf("the question was captured as %+v\nand left as %x", got, wire)
	}
}

func TestACaptureKnowsLinksWithoutEthernet(t *testing.T) {
	s := newSite(t)
	tun := s.openTUN(t)
	c := s.capture(t, xdp.CaptureFilter{Protocol: -1, Ifindex: index(t, "tun0").Index, Host: netip.MustParsePrefix("10.21.0.0/16")})
	spec := packet.Spec{Src: addrs("10.21.0.9")[0], Dst: addrs(w1v4)[0], Protocol: 17, SrcPort: 53, DstPort: 9}
	frame, err := spec.Frame()
	if err != nil {
		t.Fatal(err)
	}
	bare := frame[14:]
	if _, err := tun.Write(bare); err != nil {
		t.Fatal(err)
	}
	got := c.await(t, "a bare packet", func(xdp.Frame) bool { return true })
	if !got.L3 || !bytes.Equal(got.Data, bare) || got.Len != len(bare) || got.Hook != abi.HookTcIngress || got.Reason != abi.ReasonDefaultDrop {
		t.Errorf("captured as %+v", got)
	}
}

// watchLogs returns when what rules log, and filters sample, is listened to. Of samples it has neither time nor length.
func (s *site) watchLogs(t *testing.T) (logged func() []xdp.Sample, stop func()) {
	t.Helper()
	var mu sync.Mutex
	var have []xdp.Sample
	begun, ended := make(chan struct{}, 100), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		ended <- xdp.WatchLogs(ctx, s.dir, 100_000, func(l xdp.Sample) {
			mu.Lock()
			defer mu.Unlock()
			l.Time, l.Len = 0, 0
			have = append(have, l)
		}, func(xdp.Unseen) {
			select {
			case begun <- struct{}{}:
			default:
			}
		})
	}()
	<-begun
	<-begun
	logged = func() []xdp.Sample {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(have)
	}
	return logged, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestRulesOfWorkloadsLog: at the place where they decide, whatever comes after.
func TestRulesOfWorkloadsLog(t *testing.T) {
	s := newSite(t, judged, func(want *tc.State) {
		for i := range want.Generation.Ingress.Rules {
			want.Generation.Ingress.Rules[i].Sample = 1
		}
		want.Generation.Workloads[0].Egress.Rules[0].Sample = 1
	})
	logged, stop := s.watchLogs(t)
	out, in := s.outside.open(t, "eth0"), s.workload1.open(t, "eth0")
	g := s.live(t)
	s.try(t, g, step{at: "uplink ingress", line: "tcp 198.51.100.9:1 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1"})
	out.send(t, s.frameTo(t, "uplink", "tcp 198.51.100.66:2 > 10.0.1.10:80"))
	in.send(t, s.frameTo(t, "wl1", "udp 10.0.1.10:3 > 198.51.100.66:53"))
	in.send(t, s.frameTo(t, "wl1", "udp 10.0.1.10:3 > 198.51.100.7:53")) // its rule logs nothing
	port := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	for _, want := range []xdp.Sample{
		{Hook: abi.HookTcIngress, Ifindex: index(t, "uplink").Index, Fate: abi.EventPassed, Rule: ingressWeb, Protocol: 6, Ports: true, TCPFlags: 2,
			Src: port("198.51.100.9:1"), Dst: port("10.0.1.10:80")},
		{Hook: abi.HookTcIngress, Ifindex: index(t, "uplink").Index, Fate: abi.EventDropped, Rule: ingressBad, Protocol: 6, Ports: true, TCPFlags: 2,
			Src: port("198.51.100.66:2"), Dst: port("10.0.1.10:80")},
		{Hook: abi.HookTcIngress, Ifindex: index(t, "wl1").Index, Fate: abi.EventDropped, Rule: w1Bad, Protocol: 17, Ports: true,
			Src: port("10.0.1.10:3"), Dst: port("198.51.100.66:53")},
	} {
		awaitTrue(t, "a logged packet", func() bool { return slices.Contains(logged(), want) })
	}
	stop()
	if all := logged(); len(all) != 3 { // the twin of try told nobody
		t.Errorf("logged %+v", all)
	}
}
