package config

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manyRules is a configuration as a large site has it, of about 12 MB.
func manyRules(rules int) []byte {
	rng := rand.New(rand.NewPCG(3, uint64(rules)))
	prefix := func() netip.Prefix {
		var b [4]byte
		b[0], b[1], b[2], b[3] = byte(1+rng.IntN(220)), byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256))
		p, _ := netip.AddrFrom4(b).Prefix(16 + rng.IntN(17))
		return p
	}
	var text bytes.Buffer
	text.WriteString("interfaces: [{name: uplink, role: uplink, addresses: [198.18.0.2/30]}]\n" +
		"sets: [{name: block, files: [block.netset]}]\npolicy:\n  ingress:\n    default: accept\n    rules:\n" +
		"      - {name: block, from: [block], action: drop}\n")
	for i := range rules {
		low := 1 + rng.IntN(60000)
		fmt.Fprintf(&text, "      - {name: r%d, from: [%s], to: [%s], protocol: %s, ports: [%d-%d], action: %s}\n", i, prefix(), prefix(),
			[]string{"tcp", "udp"}[rng.IntN(2)], low, low+rng.IntN(1000), []string{"accept", "drop"}[rng.IntN(2)])
	}
	return text.Bytes()
}

func manyPrefixes(n int) []byte {
	rng := rand.New(rand.NewPCG(3, uint64(n)))
	var text []byte
	a := netip.MustParseAddr("1.0.0.0")
	for range n {
		text = append(a.AppendTo(text), '\n')
		for range 1 + rng.IntN(40) {
			a = a.Next()
		}
	}
	return text
}

func manySource(text []byte) Source {
	set := manyPrefixes(1)
	return Source{Name: "edge.yaml", Bytes: text, ReadFile: func(string) ([]byte, error) { return set, nil }}
}

// BenchmarkParse reads 100,000 rules: as a whole, in pieces, and again with one rule that differs and another in front of all.
func BenchmarkParse(b *testing.B) {
	text := manyRules(100_000)
	src := manySource(text)
	b.Run("whole", func(b *testing.B) {
		measure(b, func() error {
			_, err := parseWhole(src, setsOf(src))
			return err
		})
	})
	b.Run("pieces", func(b *testing.B) {
		measure(b, func() error {
			_, err := Parse(src)
			return err
		})
	})
	b.Run("change", func(b *testing.B) {
		var c Cache
		if _, err := c.Parse(src); err != nil {
			b.Fatal(err)
		}
		n := 0
		measure(b, func() error {
			n++
			changed := bytes.Replace(text, []byte("      - {name: r0,"), fmt.Appendf(nil, "      - {name: s%d, action: drop}\n      - {name: r0,", n), 1)
			_, err := c.Parse(manySource(changed))
			return err
		})
	})
}

// BenchmarkSetFile reads a million prefixes: sorted as most feeds are, and not, and once more by a Cache.
func BenchmarkSetFile(b *testing.B) {
	sorted := manyPrefixes(1_000_000)
	lines := strings.SplitAfter(string(sorted), "\n")
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	for name, text := range map[string]string{"sorted": string(sorted), "shuffled": strings.Join(lines, "")} {
		path := writeSet(b, text)
		b.Run(name, func(b *testing.B) {
			measure(b, func() error {
				_, err := ReadSetFile(path)
				return err
			})
		})
	}
	b.Run("again", func(b *testing.B) {
		var c Cache
		src := Source{Name: "edge.yaml", Bytes: []byte("sets: [{name: a, files: [f]}]"), ReadFile: func(string) ([]byte, error) { return bytes.Clone(sorted), nil }}
		if _, err := c.Parse(src); err != nil {
			b.Fatal(err)
		}
		measure(b, func() error {
			_, err := c.Parse(src)
			return err
		})
	})
}

// measure reports the highest heap that a read saw beside time and allocations.
func measure(b *testing.B, f func() error) {
	b.Helper()
	runtime.GC()
	done, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		for tick := time.NewTicker(2 * time.Millisecond); ; {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64())
			select {
			case <-done:
				tick.Stop()
				peak <- most
				return
			case <-tick.C:
			}
		}
	}()
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/1e6/float64(b.N), "cpu-ms/op")
	close(done)
	b.ReportMetric(float64(<-peak)/1e6, "peak-MB")
}

// cpuTime is what this process used of all processors, in ns.
func cpuTime(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
