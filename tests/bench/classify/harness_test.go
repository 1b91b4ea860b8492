// Package classify measures the classifier by BPF_PROG_TEST_RUN: nanoseconds per packet that it adds to a program that
// only reads its key, beside BPF_MAP_TYPE_LPM_TRIE. Lanes run side by side in shuffled rounds, because the machine's
// speed swings; what counts is the ratio.
package classify_test

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"structs"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/table"
)

const (
	rounds   = 7
	repeat   = 1 << 16
	keyCount = 1 << 16
)

type lane uint32

const (
	nothing lane = iota
	lpm
	tables
	classes
	judged
	uncounted // judged by the explain twin: without what counting costs
)

// key is struct bench_key.
type key struct {
	_                       structs.HostLayout
	Src, Dst                abi.Addr
	Sport, Dport            [2]byte
	Protocol, Family, Flags uint8
	_                       uint8
}

func keyOf(p classify.Packet) key {
	k := key{Src: p.Src.As16(), Dst: p.Dst.As16(), Protocol: p.Protocol, Family: 4, Flags: 4}
	if p.Src.Is6() {
		k.Family = 6
	}
	k.Sport = [2]byte{byte(p.SrcPort >> 8), byte(p.SrcPort)}
	k.Dport = [2]byte{byte(p.DstPort >> 8), byte(p.DstPort)}
	return k
}

func spec(b testing.TB) *ebpf.CollectionSpec {
	b.Helper()
	cmd := exec.Command("clang-19", "-target", "bpf", "-g", "-O2", "-I", "../../../xdp/include",
		"-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include/aarch64-linux-gnu", "-c", "bpf/bench.c", "-o", "-")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		b.Fatalf("clang-19: %v\n%s", err, stderr.Bytes())
	}
	s, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(stdout.Bytes()))
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// bench is one set of tables, with a program per lane.
type bench struct {
	programs map[lane]*ebpf.Program
	maps     map[string]*ebpf.Map
	loading  time.Duration
}

func newBench(b testing.TB, t *classify.Tables, trie []netip.Prefix, lanes ...lane) *bench {
	b.Helper()
	return newBenchOf(b, keyCount, t, trie, lanes...)
}

// newBenchOf takes the number of keys, a power of two.
func newBenchOf(b testing.TB, keyCount uint32, t *classify.Tables, trie []netip.Prefix, lanes ...lane) *bench {
	b.Helper()
	s := spec(b)
	for _, name := range []string{"flows", "fresh_out", "fresh_in", "translations", "interfaces", "self", "explained"} {
		s.Maps[name].MaxEntries = 1
	}
	s.Maps["bench_keys"].MaxEntries = keyCount
	s.Maps["trie4"].MaxEntries, s.Maps["trie6"].MaxEntries = uint32(len(trie)+1), uint32(len(trie)+1)
	if err := table.Resize(s, t); err != nil {
		b.Fatal(err)
	}
	if err := s.Variables["key_mask"].Set(keyCount - 1); err != nil {
		b.Fatal(err)
	}
	out := &bench{programs: map[lane]*ebpf.Program{}}
	for _, l := range lanes {
		one := s.Copy()
		as, explain := l, uint8(0)
		if l == uncounted {
			as, explain = judged, 1
		}
		if err := errors.Join(one.Variables["lane"].Set(uint32(as)), one.Variables["explain"].Set(explain)); err != nil {
			b.Fatal(err)
		}
		replace := map[string]*ebpf.Map{}
		for name, m := range out.maps {
			if name != ".rodata" {
				replace[name] = m
			}
		}
		c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: replace})
		if err != nil {
			b.Fatalf("%+v", err)
		}
		b.Cleanup(c.Close)
		out.programs[l] = c.Programs["bench"]
		if out.maps == nil {
			out.maps = c.Maps
			start := cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
			if err := table.Fill(c.Maps, t); err != nil {
				b.Fatal(err)
			}
			out.loading = cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID) - start
			fillTrie(b, c.Maps, trie)
		}
	}
	return out
}

func fillTrie(b testing.TB, maps map[string]*ebpf.Map, trie []netip.Prefix) {
	b.Helper()
	for chunk := range slices.Chunk(trie, 4096) {
		values := make([]uint32, len(chunk))
		var keys any
		name := "trie4"
		if chunk[0].Addr().Is4() {
			var k []abi.Prefix4Key
			for _, p := range chunk {
				k = append(k, abi.Prefix4Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()})
			}
			keys = k
		} else {
			name = "trie6"
			var k []abi.Prefix6Key
			for _, p := range chunk {
				k = append(k, abi.Prefix6Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()})
			}
			keys = k
		}
		if _, err := maps[name].BatchUpdate(keys, values, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// setKeys writes the packets that the lanes read.
func (x *bench) setKeys(b testing.TB, packets []classify.Packet) {
	b.Helper()
	index, keys := make([]uint32, keyCount), make([]key, keyCount)
	for i := range keys {
		index[i], keys[i] = uint32(i), keyOf(packets[i%len(packets)])
	}
	if _, err := x.maps["bench_keys"].BatchUpdate(index, keys, nil); err != nil {
		b.Fatal(err)
	}
}

// once returns the nanoseconds per packet of a lane.
func (x *bench) once(b testing.TB, l lane) float64 {
	b.Helper()
	start := threadTime(b)
	if _, err := x.programs[l].Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: repeat}); err != nil {
		b.Fatal(err)
	}
	return float64(threadTime(b)-start) / repeat
}

// run returns the median nanoseconds per packet of each lane, beyond those of the lane that does nothing.
func (x *bench) run(b testing.TB, packets []classify.Packet) map[lane]float64 {
	b.Helper()
	x.setKeys(b, packets)
	lanes := slices.Collect(maps.Keys(x.programs))
	out := map[lane]float64{}
	for i, samples := range sideBySide(b, []*bench{x}, lanes...)[0] {
		out[lanes[i]] = quartiles(samples)[1]
	}
	return out
}

// sideBySide runs lanes of several benches in shuffled rounds. It returns, by bench and lane, what each round took per
// packet beyond the same bench's lane that does nothing.
func sideBySide(b testing.TB, xs []*bench, lanes ...lane) [][][]float64 {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out := make([][][]float64, len(xs))
	for i := range out {
		out[i] = make([][]float64, len(lanes))
	}
	for range rounds {
		for _, i := range rand.Perm(len(xs)) {
			base := xs[i].once(b, nothing)
			for _, l := range rand.Perm(len(lanes)) {
				out[i][l] = append(out[i][l], xs[i].once(b, lanes[l])-base)
			}
		}
	}
	return out
}

// quartiles are the lower one, the median and the upper one.
func quartiles(samples []float64) (q [3]float64) {
	sorted := slices.Sorted(slices.Values(samples))
	for i := range q {
		q[i] = sorted[(i+1)*(len(sorted)-1)/4]
	}
	return q
}

func ratios(of, to []float64) []float64 {
	out := make([]float64, len(of))
	for i := range of {
		out[i] = of[i] / to[i]
	}
	return out
}

// threadTime is what the calling thread used of a CPU: unlike the clock, the neighbours on a busy machine do not stretch it.
func threadTime(b testing.TB) time.Duration { return cpuTime(b, unix.CLOCK_THREAD_CPUTIME_ID) }

func cpuTime(b testing.TB, clock int32) time.Duration {
	b.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(clock, &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}

func compileOf(b testing.TB, policies ...classify.Policy) (*classify.Tables, time.Duration) {
	b.Helper()
	start := cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
	t, err := classify.Compile(policies)
	if err != nil {
		b.Fatal(err)
	}
	return t, cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID) - start
}

func blocklist(set []netip.Prefix) classify.Policy {
	return classify.Policy{Name: "ingress", Default: classify.Accept, Rules: []classify.Rule{
		{ID: 1, Name: "block", From: set, Protocol: classify.AnyProtocol, Action: classify.Drop}}}
}

func tcp(src, dst netip.Addr, port uint16) classify.Packet {
	return classify.Packet{Src: src, Dst: dst, Protocol: 6, SrcPort: 40000, DstPort: port, HasPorts: true, TTL: 64}
}

// inside returns a random address of a prefix.
func inside(rng *rand.Rand, p netip.Prefix, any netip.Addr) netip.Addr {
	raw, random := p.Addr().AsSlice(), any.AsSlice()
	for bit := p.Bits(); bit < p.Addr().BitLen(); bit++ {
		mask := byte(0x80) >> (bit % 8)
		raw[bit/8] = raw[bit/8]&^mask | random[bit/8]&mask
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}
