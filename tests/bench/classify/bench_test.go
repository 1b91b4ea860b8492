// Package classify measures the classifier by BPF_PROG_TEST_RUN: nanoseconds per packet that it adds to a program that
// only reads its key, beside BPF_MAP_TYPE_LPM_TRIE. Lanes run side by side in shuffled rounds, because the machine's
// speed swings; what counts is the ratio.
package classify_test

import (
	"bytes"
	"fmt"
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
	"sluice/xdp/classify/classifytest"
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
	for _, name := range []string{"flows_out", "flows_in", "interfaces", "self", "explained"} {
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
		if err := one.Variables["lane"].Set(uint32(l)); err != nil {
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

// run returns the median nanoseconds per packet of each lane, beyond those of the lane that does nothing.
func (x *bench) run(b testing.TB, packets []classify.Packet) map[lane]float64 {
	b.Helper()
	index, keys := make([]uint32, keyCount), make([]key, keyCount)
	for i := range keys {
		index[i], keys[i] = uint32(i), keyOf(packets[i%len(packets)])
	}
	if _, err := x.maps["bench_keys"].BatchUpdate(index, keys, nil); err != nil {
		b.Fatal(err)
	}
	var lanes []lane
	for l := range x.programs {
		lanes = append(lanes, l)
	}
	frame := make([]byte, 64)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	samples := map[lane][]float64{}
	for range rounds {
		rand.Shuffle(len(lanes), func(i, j int) { lanes[i], lanes[j] = lanes[j], lanes[i] })
		cost := map[lane]float64{}
		for _, l := range lanes {
			start := threadTime(b)
			if _, err := x.programs[l].Run(&ebpf.RunOptions{Data: frame, Repeat: repeat}); err != nil {
				b.Fatal(err)
			}
			cost[l] = float64(threadTime(b)-start) / repeat
		}
		for l, c := range cost {
			samples[l] = append(samples[l], c-cost[nothing])
		}
	}
	out := map[lane]float64{}
	for l, s := range samples {
		slices.Sort(s)
		out[l] = s[len(s)/2]
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

func compile(b testing.TB, policies ...classify.Policy) (*classify.Tables, time.Duration) {
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

func BenchmarkPrefixes(b *testing.B) {
	for _, family := range []int{4, 6} {
		for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("ipv%d/%d", family, n), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, uint64(n)))
				set, any := classifytest.Blocklist4(rng, n), func() netip.Addr { return classifytest.Addr4(rng) }
				if family == 6 {
					set, any = classifytest.Blocklist6(rng, n), func() netip.Addr { return classifytest.Addr6(rng) }
				}
				t, took := compile(b, blocklist(set))
				x := newBench(b, t, set, nothing, lpm, tables)
				b.Logf("%d prefixes: compiled in %v, filled in %v, %d bytes", n, took, x.loading, t.Cost().Bytes)
				var hit, miss []classify.Packet
				for len(hit) < keyCount {
					hit = append(hit, tcp(inside(rng, set[rng.IntN(n)], any()), any(), 80))
				}
				for len(miss) < keyCount {
					if p := tcp(any(), any(), 80); t.Eval(0, p).Rule == 0 {
						miss = append(miss, p)
					}
				}
				for _, keys := range []struct {
					name    string
					packets []classify.Packet
				}{{"hit", hit}, {"miss", miss}, {"fixed", hit[:1]}} {
					cost := x.run(b, keys.packets)
					b.Logf("%-5s LPM_TRIE %6.0f ns, table %6.0f ns, ratio %.3f", keys.name, cost[lpm], cost[tables], cost[tables]/cost[lpm])
				}
			})
		}
	}
}

func BenchmarkRules(b *testing.B) {
	for _, shape := range classifytest.Shapes {
		b.Run(string(shape), func(b *testing.B) {
			var base map[string]float64
			for _, n := range []int{100, 1_000, 10_000, 100_000} {
				rng := rand.New(rand.NewPCG(2, uint64(n)))
				policy := classify.Policy{Name: "ingress", Default: classify.Accept, Rules: classifytest.Rules(rng, shape, n)}
				t, took := compile(b, policy)
				x := newBench(b, t, nil, nothing, classes, judged)
				c := t.Cost()
				b.Logf("%6d rules: compiled in %v, filled in %v, %.1f MB, %d entries, %d classes, worst probes %d", n,
					took.Round(time.Millisecond), x.loading.Round(time.Millisecond), float64(c.Bytes)/1e6, c.Entries, c.Classes, c.WorstProbes)
				cost := map[string]float64{}
				for _, keys := range []string{"match", "random", "fixed"} {
					packets := rulePackets(rng, policy.Rules, keys)
					got := x.run(b, packets)
					cost[keys] = got[judged]
					if base != nil {
						b.Logf("       %-6s classify %5.0f ns, judge too %5.0f ns: %.2f times 100 rules", keys, got[classes], got[judged], got[judged]/base[keys])
					} else {
						b.Logf("       %-6s classify %5.0f ns, judge too %5.0f ns", keys, got[classes], got[judged])
					}
				}
				if base == nil {
					base = cost
				}
			}
		})
	}
}

// rulePackets returns packets that rules match, or any of the same /8, or one again and again.
func rulePackets(rng *rand.Rand, rules []classify.Rule, keys string) []classify.Packet {
	all := netip.MustParsePrefix("10.0.0.0/8")
	var out []classify.Packet
	for len(out) < keyCount {
		r, from, to, port := rules[rng.IntN(len(rules))], all, all, uint16(rng.IntN(65536))
		if r.From != nil && keys != "random" {
			from = r.From[0]
		}
		if r.To != nil && keys != "random" {
			to = r.To[0]
		}
		if r.Ports != nil && keys != "random" {
			port = r.Ports[0].First
		}
		p := tcp(inside(rng, from, classifytest.Addr4(rng)), inside(rng, to, classifytest.Addr4(rng)), port)
		if r.Protocol == 17 {
			p.Protocol = 17
		}
		out = append(out, p)
		if keys == "fixed" {
			break
		}
	}
	return out
}
