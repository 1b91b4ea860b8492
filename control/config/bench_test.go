package config

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
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

func BenchmarkParse(b *testing.B) {
	text, set := manyRules(100_000), manyPrefixes(1)
	b.Logf("%d bytes", len(text))
	src := Source{Name: "edge.yaml", Bytes: text, ReadFile: func(string) ([]byte, error) { return set, nil }}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(src); err != nil {
			b.Fatal(err)
		}
	}
}
