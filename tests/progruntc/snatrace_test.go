package progruntc_test

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"sluice/xdp/abi"
)

// TestNoFlowLeavesByAnothersTranslation while several CPUs send more flows than there are ports, and flows are forgotten at random:
// ports go from one flow to another, but never while the first may still use them.
func TestNoFlowLeavesByAnothersTranslation(t *testing.T) {
	const flows, senders, lasts = snatPorts + 32, 4, 6 * time.Second
	type sent struct {
		flow int
		at   time.Time
	}
	h := newHidden(t)
	h.gateway.enter(t)
	program, device := h.g.Programs["workload_ingress"], index(t, "wl1")
	var frames [flows][]byte
	for n := range frames {
		frames[n] = frameOf(t, flowLine(n))
		copy(frames[n], device.HardwareAddr)
	}
	fresh := h.stateMap(t, "fresh-out", 3)
	var mu sync.Mutex
	byPort := map[uint16][]sent{}
	var wait sync.WaitGroup
	end := time.Now().Add(lasts)
	for s := range senders {
		wait.Go(func() {
			runtime.LockOSThread() // never unlocked: it ends in the namespace that it entered
			h.gateway.enter(t)
			rng := rand.New(rand.NewPCG(uint64(s), 7))
			for time.Now().Before(end) {
				n := rng.IntN(flows)
				verdict, left := run(t, program, skBuff{Ifindex: uint32(device.Index)}, frames[n])
				if p := parseFrame(left); verdict == tcxRedirect {
					if p.src.String() != self4 || wrongSums(left) != nil {
						t.Errorf("flow %d left as %s", n, p)
					}
					mu.Lock()
					byPort[p.port(true)] = append(byPort[p.port(true)], sent{n, time.Now()})
					mu.Unlock()
				} else if verdict != tcxDrop {
					t.Errorf("flow %d: returned %d", n, int32(verdict))
				}
				if rng.IntN(50) == 0 {
					var key abi.FlowKey
					if err := fresh.NextKey(nil, &key); err == nil {
						_ = fresh.Delete(key) // as the least recently used is
					}
				}
			}
		})
	}
	wait.Wait()
	changes := 0
	for port, all := range byPort {
		since := all[0].at
		for i := 1; i < len(all); i++ {
			if all[i].flow == all[i-1].flow {
				continue
			}
			changes++
			// A translation is two seconds old at least when another flow gets it; a sender may be late to note it.
			if held := all[i].at.Sub(since); held < 1500*time.Millisecond {
				t.Errorf("port %d went from flow %d to %d after %s", port, all[i-1].flow, all[i].flow, held)
			}
			since = all[i].at
		}
	}
	if changes == 0 || len(byPort) != snatPorts {
		t.Errorf("%d changes of hand among %d ports prove nothing", changes, len(byPort))
	}
	h.checkTranslations(t)
}
