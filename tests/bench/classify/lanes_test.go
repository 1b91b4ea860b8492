package classify_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// TestTheLanesAgree: a benchmark of programs that find different things would compare nothing.
func TestTheLanesAgree(t *testing.T) {
	const xdpDrop = 1
	for name, of := range map[string]struct {
		set []netip.Prefix
		any func(*rand.Rand) netip.Addr
	}{
		"ipv4": {classifytest.Blocklist4(rand.New(rand.NewPCG(1, 4)), 1000), classifytest.Addr4},
		"ipv6": {classifytest.Blocklist6(rand.New(rand.NewPCG(1, 6)), 1000), classifytest.Addr6},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(2, 2))
			compiled, _ := compileOf(t, blocklist(of.set))
			x := newBenchOf(t, 1, compiled, of.set, lpm, tables, judged)
			listed := 0
			for i := range 2000 {
				p := tcp(of.any(rng), of.any(rng), 80)
				if i%2 == 0 {
					p.Src = inside(rng, of.set[rng.IntN(len(of.set))], of.any(rng))
				}
				want := compiled.Eval(0, p).Action == classify.Drop
				if want {
					listed++
				}
				for l, program := range x.programs {
					if got := x.verdict(t, program, p) == xdpDrop; got != want {
						t.Fatalf("lane %d: %s listed: %v, want %v", l, p.Src, got, want)
					}
				}
			}
			if listed < 1000 {
				t.Errorf("only %d of 2000 were listed", listed)
			}
		})
	}
}

// verdict runs one packet. There is but one key.
func (x *bench) verdict(t *testing.T, program *ebpf.Program, p classify.Packet) uint32 {
	t.Helper()
	if err := x.maps["bench_keys"].Put(uint32(0), keyOf(p)); err != nil {
		t.Fatal(err)
	}
	verdict, err := program.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		t.Fatal(err)
	}
	return verdict
}
