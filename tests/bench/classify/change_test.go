package classify_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/host"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
	"sluice/xdp/pin"
)

// The size that the budgets are about.
const (
	manyPrefixes = 1_000_000
	manyRules    = 100_000
)

// file is a configuration with a set file, as an operator has them.
type file struct {
	text []byte
	set  []byte
}

func newFile(prefixes, rules int) *file {
	rng := rand.New(rand.NewPCG(3, uint64(rules)))
	f := &file{}
	var set, text bytes.Buffer
	for _, p := range classifytest.Blocklist4(rng, prefixes) {
		fmt.Fprintln(&set, p)
	}
	text.WriteString("interfaces: [{name: uplink, role: uplink, addresses: [198.18.0.2/30]}]\n" +
		"sets: [{name: block, files: [block.netset]}]\npolicy:\n  ingress:\n    default: accept\n    rules:\n" +
		"      - {name: block, from: [block], action: drop}\n")
	for i, r := range classifytest.Rules(rng, classifytest.ACL, rules) {
		fmt.Fprintf(&text, "      - {name: r%d", i)
		for key, list := range map[string][]netip.Prefix{"from": r.From, "to": r.To} {
			if list != nil {
				fmt.Fprintf(&text, ", %s: [%s]", key, list[0])
			}
		}
		if r.Protocol != classify.AnyProtocol {
			fmt.Fprintf(&text, ", protocol: %s", map[int]string{6: "tcp", 17: "udp"}[r.Protocol])
		}
		if r.Ports != nil {
			fmt.Fprintf(&text, ", ports: [%d-%d]", r.Ports[0].First, r.Ports[0].Last)
		}
		fmt.Fprintf(&text, ", action: %s}\n", map[classify.Action]string{classify.Accept: "accept", classify.Drop: "drop"}[r.Action])
	}
	f.text, f.set = text.Bytes(), set.Bytes()
	return f
}

func (f *file) parse(b *testing.B) *config.Config {
	b.Helper()
	cfg, err := config.Parse(config.Source{Name: "sluice.yaml", Bytes: f.text, ReadFile: func(string) ([]byte, error) { return f.set, nil }})
	if err != nil {
		b.Fatal(err)
	}
	return cfg
}

// box is what a daemon drives, in a network namespace of its own.
type box struct {
	dir     string
	xdp     *xdp.Subsystem
	tc      *tc.Subsystem
	compile func(*config.Config, compile.Runtime, compile.Facts) (*compile.Desired, error)
	ids     map[string]uint32
}

func newBox(b *testing.B) *box {
	b.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		b.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	parent, err := os.MkdirTemp("/sys/fs/bpf", "sluice-bench-")
	if err != nil {
		b.Fatal(err)
	}
	x := &box{dir: filepath.Join(parent, "site")}
	b.Cleanup(func() {
		if err := pin.At(x.dir).RemoveAll(); err != nil {
			b.Error(err)
		}
		os.Remove(parent)
		if err := netns.Set(home); err == nil {
			runtime.UnlockOSThread()
		}
		ns.Close()
		home.Close()
	})
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "tor"}); err != nil {
		b.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	x.xdp, x.tc = xdp.New(quiet, xdp.Options{BPFDir: x.dir}), tc.New(quiet, tc.Options{BPFDir: x.dir})
	x.compile = new(compile.Cache).Compile
	return x
}

// lap is the time of one step: by the clock, and of all processors. On a busy machine only the latter means anything.
type lap struct{ wall, cpu time.Duration }

func (l lap) plus(m lap) lap { return lap{l.wall + m.wall, l.cpu + m.cpu} }

func (l lap) String() string {
	return fmt.Sprintf("%d (%d)", l.wall.Milliseconds(), l.cpu.Milliseconds())
}

// cost is what one apply took, step by step.
type cost struct {
	parse, compile, tc, xdp lap
	maps                    uint64 // bytes, of the former generations and of the new ones together
}

func (c cost) String() string {
	return fmt.Sprintf("ms (of CPU): parse %s; compile with digests %s, tc %s, XDP %s, together %s; maps at the peak %d MB",
		c.parse, c.compile, c.tc, c.xdp, c.compile.plus(c.tc).plus(c.xdp), c.maps>>20)
}

func (x *box) apply(b *testing.B, f *file) (c cost) {
	b.Helper()
	next := stopwatch(b)
	cfg := f.parse(b)
	c.parse = next()
	facts := compile.Facts{Host: host.Facts{Links: []host.LinkFact{{Name: "uplink", Index: 2, MTU: 1500, Up: true, Carrier: true}}}}
	d, err := x.compile(cfg, compile.Runtime{RuleIDs: x.ids}, facts)
	if err != nil {
		b.Fatal(err)
	}
	c.compile = next()
	x.ids = d.RuleIDs
	before := x.mapsInUse(b)
	next()
	have, err := x.tc.Observe(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, op := range x.tc.Diff(have, d.TC) {
		if err := x.tc.Apply(b.Context(), op); err != nil {
			b.Fatal(err)
		}
	}
	c.tc = next()
	haveXDP, err := x.xdp.Observe(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, op := range x.xdp.Diff(haveXDP, d.XDP) {
		if err := x.xdp.Apply(b.Context(), op); err != nil {
			b.Fatal(err)
		}
	}
	c.xdp = next()
	for id, bytes := range x.mapsInUse(b) {
		before[id] = bytes
	}
	for _, bytes := range before {
		c.maps += bytes
	}
	return c
}

// stopwatch returns a function that tells the time since it was last asked.
func stopwatch(b *testing.B) func() lap {
	now := func() lap {
		return lap{time.Duration(time.Now().UnixNano()), cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)}
	}
	last := now()
	return func() lap {
		at := now()
		defer func() { last = at }()
		return lap{at.wall - last.wall, at.cpu - last.cpu}
	}
}

// mapsInUse are the bytes of every map that pinned generations use, by id.
func (x *box) mapsInUse(b *testing.B) map[ebpf.MapID]uint64 {
	b.Helper()
	used := map[ebpf.MapID]uint64{}
	dir := pin.At(x.dir)
	for _, owner := range []string{"xdp", "tc"} {
		digests, err := dir.Generations(owner)
		if err != nil {
			b.Fatal(err)
		}
		for _, digest := range digests {
			g, err := dir.LoadGeneration(owner, digest)
			if err != nil {
				b.Fatal(err)
			}
			for _, p := range g.Programs {
				info, err := p.Info()
				if err != nil {
					b.Fatal(err)
				}
				ids, _ := info.MapIDs()
				for _, id := range ids {
					if _, known := used[id]; !known {
						used[id] = mapBytes(b, id)
					}
				}
			}
			g.Close()
		}
	}
	return used
}

func mapBytes(b *testing.B, id ebpf.MapID) uint64 {
	b.Helper()
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		b.Fatal(err)
	}
	bytes, _ := info.Memlock()
	return bytes
}

// residentPeak is VmHWM in MB, of this process since the last call.
func residentPeak(b *testing.B) int {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	var kb int
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
	return kb >> 10
}

// BenchmarkChange applies 1M prefixes and 100k rules from a file, then changes that differ by one rule or one prefix.
func BenchmarkChange(b *testing.B) {
	times := 3
	if os.Getenv("BENCH") == "quick" {
		times = 1
	}
	f, x := newFile(manyPrefixes, manyRules), newBox(b)
	runtime.GC()
	residentPeak(b)
	b.Logf("all of it:    %s; RSS peak %d MB", x.apply(b, f), residentPeak(b))
	for i := range times {
		f.text = bytes.Replace(f.text, fmt.Appendf(nil, "name: r%d,", 1000+i), fmt.Appendf(nil, "mode: shadow, name: r%d,", 1000+i), 1)
		b.Logf("a rule's mode: %s; RSS peak %d MB", x.apply(b, f), residentPeak(b))
	}
	for i := range times {
		f.text = fmt.Appendf(f.text, "      - {name: new-%d, from: [10.77.%d.0/24], to: [10.66.0.%d], action: drop}\n", i, i, i)
		b.Logf("a new rule:   %s; RSS peak %d MB", x.apply(b, f), residentPeak(b))
	}
	for i := range times {
		f.set = fmt.Appendf(f.set, "9.%d.7.7/32\n", i)
		b.Logf("a new prefix: %s; RSS peak %d MB", x.apply(b, f), residentPeak(b))
	}
}
