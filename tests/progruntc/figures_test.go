package progruntc_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// manyRules are rules that none of the site's packets matches, and one behind them that accepts all.
func manyRules(first uint32, n int) []classify.Rule {
	rules := make([]classify.Rule, 0, n+1)
	for i := range n {
		net := netip.AddrFrom4([4]byte{172, byte(16 + i>>16), byte(i >> 8), byte(i)})
		rules = append(rules, classify.Rule{ID: first + uint32(i), Name: fmt.Sprintf("r%d", i), From: []netip.Prefix{netip.PrefixFrom(net, 32)},
			Protocol: 6, Ports: ports(uint16(1+i%60000), uint16(1+i%60000)), Action: classify.Drop})
	}
	return append(rules, classify.Rule{ID: first + uint32(n), Name: "rest", Protocol: classify.AnyProtocol, Action: classify.Accept})
}

// figureRuns is how often one call runs a program: each run takes one from the packet's TTL of 255.
const figureRuns = 250

// timed gives the mean time of a packet in one call: the kernel's own figure, without what a call costs.
func timed(t testing.TB, p *ebpf.Program, ctx skBuff, frame []byte, repeat uint32) time.Duration {
	t.Helper()
	var context struct {
		skBuff
		_ [148]byte
	}
	context.skBuff = ctx
	var call struct { // union bpf_attr, of BPF_PROG_TEST_RUN
		Fd, Retval, SizeIn, SizeOut uint32
		DataIn, DataOut             uint64
		Repeat, Duration            uint32
		CtxSizeIn, CtxSizeOut       uint32
		CtxIn, CtxOut               uint64
		Flags, CPU, Batch, _        uint32
	}
	call.Fd, call.Repeat = uint32(p.FD()), repeat
	call.DataIn, call.SizeIn = uint64(uintptr(unsafe.Pointer(&frame[0]))), uint32(len(frame))
	call.CtxIn, call.CtxSizeIn = uint64(uintptr(unsafe.Pointer(&context))), uint32(unsafe.Sizeof(context))
	for {
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(&call)), unsafe.Sizeof(call))
		runtime.KeepAlive(frame)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			t.Fatal(errno)
		}
		return time.Duration(call.Duration)
	}
}

// BenchmarkHooks gives the time of a packet at each hook of its way between a workload and a client, in the best of many
// short test runs, where each policy has 10,000 rules. What a redirect makes of the packet is not in it.
func BenchmarkHooks(b *testing.B) {
	s := newSite(b, func(want *tc.State) {
		g := &want.Generation
		g.Workloads[0].Ingress.Rules, g.Workloads[0].Egress.Rules = manyRules(1000, 10000), manyRules(20000, 10000)
		g.Egress.Rules = manyRules(40000, 10000)
		g.RuleSlots, g.Strict = 60000, nil
	})
	g := s.live(b)
	const in, back = "198.51.100.7:9999 > 10.0.1.10:80", "10.0.1.10:80 > 198.51.100.7:9999"
	const out, answer = "10.0.1.10:4000 > 198.51.100.7:443", "198.51.100.7:443 > 10.0.1.10:4000"
	for _, st := range []step{
		{at: "uplink ingress", line: "tcp " + in + " flags=S", seq: 100, reason: abi.ReasonDelivered, to: "wl1"},
		{at: "wl1 ingress", line: "tcp " + back + " flags=SA", seq: 500, ack: 101, reason: abi.ReasonForwarded, to: "uplink"},
		{at: "uplink ingress", line: "tcp " + in + " flags=A", seq: 101, ack: 501, reason: abi.ReasonDelivered, to: "wl1"},
		{at: "wl1 ingress", line: "tcp " + out + " flags=S", seq: 100, reason: abi.ReasonForwarded, to: "uplink"},
		{at: "uplink ingress", line: "tcp " + answer + " flags=SA", seq: 500, ack: 101, reason: abi.ReasonDelivered, to: "wl1"},
		{at: "wl1 ingress", line: "tcp " + out + " flags=A", seq: 101, ack: 501, reason: abi.ReasonForwarded, to: "uplink"},
		{at: "wl1 ingress", line: "udp " + out, reason: abi.ReasonForwarded, to: "uplink"},
		{at: "uplink ingress", line: "udp " + answer, reason: abi.ReasonDelivered, to: "wl1"},
	} {
		s.try(b, g, st)
	}
	type lane struct {
		name    string
		program *ebpf.Program
		ctx     skBuff
		frame   []byte
		best    time.Duration
	}
	var lanes []*lane
	for _, test := range []struct {
		name, at, line string
		mark           uint32
		from           string
	}{
		{"out-first", "wl1 ingress", "tcp " + out + " flags=A", 0, ""},
		{"out-reply", "uplink ingress", "tcp " + answer + " flags=A", 0, ""},
		{"in-first", "uplink ingress", "tcp " + in + " flags=A", 0, ""},
		{"in-reply", "wl1 ingress", "tcp " + back + " flags=A", 0, ""},
		{"leaves", "uplink egress", "tcp " + out + " flags=A", abi.MarkJudged, "wl1"},
		{"udp-first", "wl1 ingress", "udp " + out, 0, ""},
		{"udp-reply", "uplink ingress", "udp " + answer, 0, ""},
	} {
		name, device := s.program(b, g, test.at)
		frame := frameOf(b, test.line+" ttl=255")
		copy(frame, device.HardwareAddr)
		ctx := skBuff{Ifindex: uint32(device.Index), Mark: test.mark}
		if test.from != "" {
			ctx.IngressIfindex = uint32(index(b, test.from).Index)
		}
		lanes = append(lanes, &lane{test.name, g.Programs[name], ctx, frame, time.Hour})
	}
	for range 1000 { // short, for other work on the machine only adds
		for _, l := range lanes {
			l.best = min(l.best, timed(b, l.program, l.ctx, l.frame, figureRuns))
		}
	}
	for _, l := range lanes {
		b.ReportMetric(float64(l.best.Nanoseconds()), l.name+"-ns/packet")
	}
	name, device := s.program(b, g, "wl1 ingress")
	frame := frameOf(b, "tcp "+out+" flags=S ttl=255")
	copy(frame, device.HardwareAddr)
	best := time.Hour
	for port := range uint16(4000) {
		binary.BigEndian.PutUint16(frame[14+20:], 20000+port)
		best = min(best, timed(b, g.Programs[name], skBuff{Ifindex: uint32(device.Index)}, frame, 1))
	}
	b.ReportMetric(float64(best.Nanoseconds()), "new-flow-ns/packet")
}
