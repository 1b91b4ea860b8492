package progrun_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// BenchmarkSYNs gives the CPU time of one spoofed SYN, the generator's and the veths' included: dropped by a rule, answered by
// XDP, and answered by the kernel with its own cookies (without tcx, which sluice would add).
func BenchmarkSYNs(b *testing.B) {
	s := newSite(b, protecting())
	consumer(b)
	listening(b)
	tor := ifindex(b, "tor")
	const each = 1 << 19
	drop := generation(classify.Accept, classify.Rule{ID: 1, To: prefixes(dst4.String() + "/32"), Protocol: 6, Action: classify.Drop})
	accept := protecting()
	accept.Ingress.Rules[0].Action, accept.SYNListeners = classify.Accept, nil
	cost := map[string][]float64{}
	for b.Loop() {
		for _, lane := range []string{"drop", "answer", "kernel"} {
			switch lane {
			case "drop":
				s.load(b, drop)
			case "answer":
				s.load(b, protecting())
				l := s.listener(b, listenAt())
				l.busy()
			case "kernel":
				s.load(b, accept)
			}
			before := cpuTime(b)
			sprayed(b, tor, each)
			cost[lane] = append(cost[lane], float64(cpuTime(b)-before)/each)
		}
	}
	b.ReportMetric(float64(kernelCookies(b))/each/float64(len(cost["kernel"])), "kernel-cookies/SYN")
	if got := count(b, s.counts, s.slot*abi.ReasonSlots+uint32(abi.ReasonSYNCookie)); got.Packets == 0 {
		b.Fatal("XDP answered nothing")
	}
	for lane, all := range cost {
		least := all[0]
		for _, v := range all {
			least = min(least, v)
		}
		b.ReportMetric(least, lane+"-ns/SYN")
	}
}

// checkedSYN is the SYN whose source port is 0 and whose sequence number begins with 0xffff, with its checksums: the kernel
// looks at them.
func checkedSYN(b *testing.B) []byte {
	b.Helper()
	segment := syn(linuxSYN...)
	segment[0], segment[1], segment[4], segment[5] = 0, 0, 0xff, 0xff
	p := gopacket.NewPacket(frame4(6, segment), layers.LayerTypeEthernet, gopacket.Default)
	var all []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		if h, ok := l.(*layers.TCP); ok {
			if err := h.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				b.Fatal(err)
			}
		}
		all = append(all, l.(gopacket.SerializableLayer))
	}
	out := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{ComputeChecksums: true}, all...); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// kernelCookies is how many the kernel itself has sent in this namespace.
func kernelCookies(b *testing.B) (sent int) {
	b.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		b.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	if _, err := fmt.Sscan(values[slices.Index(names, "SyncookiesSent")], &sent); err != nil {
		b.Fatal(err)
	}
	return sent
}

// sprayed sends SYNs from one address and random ports.
func sprayed(b *testing.B, out, n int) {
	b.Helper()
	frame := checkedSYN(b)
	template, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 80, MaxEntries: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer template.Close()
	mac, err := net.InterfaceByName("uplink")
	if err != nil {
		b.Fatal(err)
	}
	copy(frame, mac.HardwareAddr)
	if err := template.Put(uint32(0), append(bytes.Clone(frame), make([]byte, 80-len(frame))...)); err != nil {
		b.Fatal(err)
	}
	send, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R3, template.FD(), 0),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Imm(asm.R4, int32(len(frame))),
		asm.FnXdpStoreBytes.Call(),
		// The source port and its complement in the sequence number leave the checksum as it is.
		asm.FnGetPrandomU32.Call(),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.Half),
		asm.Xor.Imm(asm.R0, -1),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Half),
		asm.StoreImm(asm.RFP, -6, 0xbb01, asm.Half), // 443 in network byte order
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 34),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 6),
		asm.FnXdpStoreBytes.Call(),
		asm.Mov.Imm(asm.R0, xdpTX), asm.Return(),
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer send.Close()
	_, err = send.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(n), Flags: liveFrames,
		Context: xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(out)}})
	if err != nil && !errors.Is(err, unix.EINTR) {
		b.Fatal(err)
	}
}

// cpuTime is what this thread and the kernel's softirq threads have used, in ns.
func cpuTime(b *testing.B) int64 {
	b.Helper()
	var own unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &own); err != nil {
		b.Fatal(err)
	}
	total := own.Nano()
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(comm), "ksoftirqd/") {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(name), "schedstat"))
		var ns int64
		if _, scanErr := fmt.Sscan(string(stat), &ns); err != nil || scanErr != nil {
			b.Fatal(err, scanErr)
		}
		total += ns
	}
	return total
}

// consumer drops what comes back to "tor" before it costs anything.
func consumer(b *testing.B) {
	b.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpDrop), asm.Return()}})
	if err != nil {
		b.Fatal(err)
	}
	defer program.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: ifindex(b, "tor"), Flags: link.XDPDriverMode})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
}

func listenAt() netip.AddrPort { return netip.AddrPortFrom(dst4, 443) }

// listening gives the box its address, a way back to every source, and a listener.
func listening(b *testing.B) {
	b.Helper()
	for path, value := range map[string]string{"ipv4/tcp_syncookies": "2", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/uplink/rp_filter": "0"} {
		if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
			b.Fatal(err)
		}
	}
	uplink, err := netlink.LinkByName("uplink")
	if err != nil {
		b.Fatal(err)
	}
	router := net.IPv4(203, 0, 113, 1)
	address, err := netlink.ParseAddr(dst4.String() + "/24")
	if err != nil {
		b.Fatal(err)
	}
	for _, err := range []error{
		netlink.AddrAdd(uplink, address),
		netlink.NeighAdd(&netlink.Neigh{LinkIndex: uplink.Attrs().Index, IP: router, State: netlink.NUD_PERMANENT,
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}),
		netlink.RouteAdd(&netlink.Route{Gw: router}),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
	l, err := net.Listen("tcp4", listenAt().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
}
