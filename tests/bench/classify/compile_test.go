package classify_test

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/host"
)

// cloned is a configuration as if it had been read anew: nothing of it is shared with cfg but strings.
func cloned(cfg *config.Config) *config.Config {
	out := *cfg
	out.Sets = slices.Clone(cfg.Sets)
	for i := range out.Sets {
		out.Sets[i].Prefixes = slices.Clone(out.Sets[i].Prefixes)
	}
	out.Policy.Ingress.Rules = slices.Clone(cfg.Policy.Ingress.Rules)
	for i := range out.Policy.Ingress.Rules {
		r := &out.Policy.Ingress.Rules[i]
		r.From, r.To, r.Ports = slices.Clone(r.From), slices.Clone(r.To), slices.Clone(r.Ports)
	}
	return &out
}

// edits are changes of one rule or one prefix; n tells them apart.
var edits = []struct {
	name string
	edit func(cfg *config.Config, n int)
}{
	{"nothing", func(*config.Config, int) {}},
	{"a rule's mode", func(cfg *config.Config, n int) {
		r := &cfg.Policy.Ingress.Rules[1000+n]
		r.Shadow = !r.Shadow
	}},
	{"a rule's ports", func(cfg *config.Config, n int) {
		cfg.Policy.Ingress.Rules[2000+n].Ports = []config.Range{{First: 77, Last: 99}}
	}},
	{"a rule more, of known prefixes", func(cfg *config.Config, n int) {
		r := cfg.Policy.Ingress.Rules[3000+n]
		r.Name, r.Action = fmt.Sprint("copy-", n), config.Drop
		cfg.Policy.Ingress.Rules = slices.Insert(cfg.Policy.Ingress.Rules, 500+n, r)
	}},
	{"a rule more, of new prefixes", func(cfg *config.Config, n int) {
		r := config.Rule{Name: fmt.Sprint("new-", n), Protocol: config.AnyProtocol, Action: config.Drop,
			From: []config.Ref{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(n), 0}), 24)}},
			To:   []config.Ref{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 66, 0, byte(n)}), 32)}}}
		cfg.Policy.Ingress.Rules = slices.Insert(cfg.Policy.Ingress.Rules, 50_000, r)
	}},
	{"a rule less", func(cfg *config.Config, n int) {
		cfg.Policy.Ingress.Rules = slices.Delete(cfg.Policy.Ingress.Rules, 4000+n, 4001+n)
	}},
	{"a prefix more", func(cfg *config.Config, n int) {
		set := &cfg.Sets[0].Prefixes
		*set = append(*set, netip.PrefixFrom(netip.AddrFrom4([4]byte{9, byte(n), 7, 7}), 32))
	}},
	{"a prefix less", func(cfg *config.Config, n int) {
		set := &cfg.Sets[0].Prefixes
		*set = slices.Delete(*set, 5000+n, 5001+n)
	}},
}

// BenchmarkCompileChange compiles 1M prefixes and 100k rules, then changes of one rule or one prefix.
func BenchmarkCompileChange(b *testing.B) {
	times := 5
	if os.Getenv("BENCH") == "quick" {
		times = 2
	}
	cfg := newFile(manyPrefixes, manyRules).parse(b)
	facts := compile.Facts{Host: host.Facts{Links: []host.LinkFact{{Name: "uplink", Index: 2, MTU: 1500, Up: true, Carrier: true}}}}
	cache := new(compile.Cache)
	var ids map[string]uint32
	digest := ""
	run := func() lap {
		next := stopwatch(b)
		d, err := cache.Compile(cfg, compile.Runtime{RuleIDs: ids}, facts)
		if err != nil {
			b.Fatal(err)
		}
		took := next()
		same := d.TC.Digest == digest
		ids, digest = d.RuleIDs, d.TC.Digest
		if same {
			took.wall = -took.wall
		}
		return took
	}
	runtime.GC()
	residentPeak(b)
	first := run()
	b.Logf("%-32s %s ms (of CPU); RSS peak %d MB", "all of it:", first, residentPeak(b))
	n := 0
	for _, e := range edits {
		b.Run(e.name, func(b *testing.B) {
			var took []string
			for range times {
				cfg = cloned(cfg)
				e.edit(cfg, n)
				n++
				runtime.GC() // of what reading it would leave behind
				l := run()
				if (l.wall < 0) != (e.name == "nothing") {
					b.Fatalf("the digest tells a change: %v", l.wall > 0)
				}
				took = append(took, lap{l.wall.Abs(), l.cpu}.String())
			}
			b.Logf("%s; RSS peak %d MB", took, residentPeak(b))
		})
	}
}
