package progrun_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// BenchmarkPlainRules gives the time of one packet through rules that ask for nothing but addresses, protocol and ports:
// what other conditions cost those who do not use them.
func BenchmarkPlainRules(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		rng := rand.New(rand.NewPCG(5, uint64(n)))
		g := generation(classify.Drop, classifytest.Rules(rng, classifytest.ACL, n)...)
		s := newSite(b, g)
		b.ReportMetric(float64(walked(b, s.live)), "verifier-insns")
		var frames [][]byte
		for range 16 { // that rules match: most with a port, some as the default
			r := g.Ingress.Rules[rng.IntN(n)]
			frame := frame4(6, tcp(1, 443))
			if len(r.From) > 0 {
				copy(frame[26:], r.From[0].Addr().AsSlice())
			}
			copy(frame[30:], r.To[0].Addr().AsSlice())
			if r.Ports != nil {
				copy(frame[36:], be16(int(r.Ports[0].First)))
			}
			frames = append(frames, frame)
		}
		for range b.N {
			total := 0.0
			for _, frame := range frames {
				best := time.Hour // the least of many short runs: a busy machine only adds
				for range 30 {
					_, each, err := s.live.Benchmark(frame, 10_000, nil)
					if err != nil {
						b.Fatal(err)
					}
					best = min(best, each)
				}
				total += float64(best.Nanoseconds())
			}
			b.ReportMetric(total/float64(len(frames)), fmt.Sprintf("%d-rules-ns/packet", n))
		}
	}
}
