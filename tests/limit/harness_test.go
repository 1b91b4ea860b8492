// Package limit runs the limiter of limit.h by itself, by BPF_PROG_TEST_RUN with a clock of the test's own, and measures
// what it costs.
package limit_test

import (
	"bytes"
	"net/netip"
	"os/exec"
	"structs"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/table"
)

// batch is how many packets stand in the array of arrivals at once, a power of two.
const batch = 1 << 16

// ruleIDs have counters.
const ruleIDs = 1024

type lane uint32

const (
	nothing lane = iota
	limiting
	lru
)

// arrival is struct arrival.
type arrival struct {
	_                          structs.HostLayout
	Now                        uint64 // ns; 0: the kernel's clock
	Src                        abi.Addr
	Len, Limiter               uint32
	Segments, L4               uint16
	Family, Protocol, Accepted uint8
	_                          uint8
}

// packet arrives at a time.
func packet(ns uint64, src netip.Addr) arrival {
	a := arrival{Now: ns, Src: src.As16(), Len: 64, L4: 34, Family: 6, Protocol: 17}
	if src.Is4() {
		a.Family = 4
	}
	return a
}

// harness is the program with its arrivals.
type harness struct {
	program  *ebpf.Program
	maps     map[string]*ebpf.Map
	arrivals []arrival // shared with the program
}

func newHarness(t testing.TB, l lane, n int, limiters ...classify.Limiter) *harness {
	t.Helper()
	cmd := exec.Command("clang-19", "-target", "bpf", "-g", "-O2", "-I", "../../xdp/include",
		"-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include/aarch64-linux-gnu", "-c", "bpf/limit.c", "-o", "-")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("clang-19: %v\n%s", err, stderr.Bytes())
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(stdout.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Maps {
		m.MaxEntries = max(m.MaxEntries, 1)
	}
	spec.Maps[table.RuleHits].MaxEntries = uint32(ruleIDs * ebpf.MustPossibleCPU())
	spec.Maps["arrivals"].MaxEntries = uint32(n)
	for name, v := range map[string]any{"rule_ids": uint32(ruleIDs), "lane": uint32(l), "arrival_mask": uint32(n - 1)} {
		if err := spec.Variables[name].Set(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.ResizeLimiters(spec, limiters); err != nil {
		t.Fatal(err)
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(c.Close)
	if err := table.FillLimiters(c.Maps[table.Limiters], limiters); err != nil {
		t.Fatal(err)
	}
	if err := c.Maps[table.LimitSeed].Put(uint32(0), uint64(0x0123456789abcdef)); err != nil {
		t.Fatal(err)
	}
	size := n * int(unsafe.Sizeof(arrival{}))
	memory, err := unix.Mmap(c.Maps["arrivals"].FD(), 0, (size+4095)&^4095, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(memory) })
	return &harness{c.Programs["arrive"], c.Maps, unsafe.Slice((*arrival)(unsafe.Pointer(unsafe.SliceData(memory))), n)}
}

// arrive runs packets through the program, and says what became of each.
func (h *harness) arrive(t testing.TB, all []arrival) []bool {
	t.Helper()
	out := make([]bool, 0, len(all))
	for len(all) > 0 {
		n := copy(h.arrivals, all)
		all = all[n:]
		if err := h.maps[".bss"].Put(uint32(0), make([]byte, h.maps[".bss"].ValueSize())); err != nil { // from the first one on
			t.Fatal(err)
		}
		h.run(t, n)
		for i := range n {
			out = append(out, h.arrivals[i].Accepted != 0)
		}
	}
	return out
}

func (h *harness) run(t testing.TB, repeat int) {
	t.Helper()
	if _, err := h.program.Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: uint32(repeat)}); err != nil {
		t.Fatal(err)
	}
}

func (h *harness) pressure(t testing.TB) abi.LimitPressure {
	t.Helper()
	var perCPU []abi.LimitPressure
	if err := h.maps[table.LimitPressure].Lookup(uint32(0), &perCPU); err != nil {
		t.Fatal(err)
	}
	var out abi.LimitPressure
	for _, c := range perCPU {
		out.Forgotten += c.Forgotten
		out.Shared += c.Shared
	}
	return out
}

// dropped is the counter of what went beyond a limit.
func (h *harness) dropped(t testing.TB, id uint32) uint64 {
	t.Helper()
	var packets uint64
	for cpu := range ebpf.MustPossibleCPU() {
		var c abi.RuleHit
		if err := h.maps[table.RuleHits].Lookup(uint32(cpu)*ruleIDs+id, &c); err != nil {
			t.Fatal(err)
		}
		packets += c.Packets
	}
	return packets
}
