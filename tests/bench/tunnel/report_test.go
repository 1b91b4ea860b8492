package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/tests/bench/report"
	"sluice/tests/bench/report/reporttest"
	"sluice/tests/bench/tunnel/trial"
)

// made are results with known ratios: each lane costs a fixed number of times what its round makes of a microsecond.
func made() *Results {
	r := &Results{
		When: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Size: "full", Revision: "v0", Took: 540 * time.Second, Rounds: 3, Guest: Full.Machine,
		Machine:     report.Machine{Kernel: "6.18 x86_64", CPU: "some CPU", Cores: 2, MemoryGB: 8, JIT: "on", Go: "go1", Load: "0 0 0"},
		GuestKernel: "6.12", OpenSSL: "OpenSSL 3", Crypto: trial.Crypto{Flags: []string{"aes", "avx2"}, Drivers: map[string]string{"rfc4106(gcm(aes))": "fast", "chacha20": "simd"}},
	}
	for i, s := range trial.Shapes(wires) {
		k := float64(1 + i)
		add := func(list *[]trial.Measurement, key string, cost float64) {
			m := trial.Measurement{Lane: key, Shape: s, Cost: []float64{cost * k, 2 * cost * k, cost * k}, Rate: []float64{10 / cost, 5 / cost, 10 / cost}}
			if s.Kind == trial.RR {
				m.P50, m.P99 = m.Cost, m.Cost[:1]
			}
			*list = append(*list, m)
		}
		for key, cost := range map[string]float64{Plain: 100, WireGuardGo: 400, Embedded: 410, AllCores: 300} {
			add(&r.Host, key, cost)
		}
		for key, cost := range map[string]float64{Plain: 50, WireGuard: 200, ESPGCM: 150, ESPChaCha: 180, ESPNull: 80} {
			add(&r.Inside, key, cost)
		}
	}
	for _, size := range Full.Ciphers.Sizes {
		r.Ciphers = append(r.Ciphers, Cipher{aesGCM, size, []float64{300, 310, 305}}, Cipher{chaCha, size, []float64{600, 620, 610}})
	}
	for _, size := range Full.Peers.Sizes {
		for lane, k := range map[string]float64{SluiceHub: 4, RivalHub: 1} {
			n := k * float64(size.Peers)
			r.Hubs = append(r.Hubs, Hub{Lane: lane, Size: size, Apply: []float64{n, 2 * n}, Change: []float64{k, k, k}, ApplyCPU: []float64{n / 2, n}, ChangeCPU: []float64{k / 2, k}})
		}
		for _, c := range ways {
			if size.Tunnels > 1 && !c.many {
				continue
			}
			r.Idle = append(r.Idle, Idle{SluiceHub, c.What, size, 2, 1})
			if c.rival {
				r.Idle = append(r.Idle, Idle{RivalHub, c.What, size, 1, 1})
			}
		}
	}
	for _, l := range Full.Machine.Layouts {
		for key, busy := range map[string][]float64{Plain: {20, 10, 0, 0}, WireGuard: {40, 40, 40, 20}, ESPGCM: {60, 50, 10, 0}} {
			r.Spreads = append(r.Spreads, trial.Spread{Lane: key, Tunnels: l.Tunnels, Flows: l.Flows, MB: []float64{10, 10, 20}, Wall: []float64{50, 50, 100}, Busy: [][]float64{busy, busy, busy}})
		}
	}
	return r
}

// TestTheReport draws known results, saved and loaded again. -update writes the golden text anew.
func TestTheReport(t *testing.T) {
	if plots := reporttest.Redraw(t, commandLine(&Results{}), made()); len(plots) != len(made().figures()) {
		t.Errorf("%d plots", len(plots))
	}
}

func TestAReportWithoutMeasurementsIsDrawn(t *testing.T) {
	dir := t.TempDir()
	if err := (&Results{Guest: Quick.Machine}).Draw(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "tunnel.md"))
	if err != nil || strings.Contains(string(text), "NaN") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestPartsAreComposed(t *testing.T) {
	r := made()
	c, ok := r.compose(wires[0])
	// Of STREAM, MTU 1500 (the third shape): 100 µs on the host are 50 thousand instructions inside.
	want := Composed{Wire: wires[0], Forwarding: 300, ESPPath: 2 * 3 * (80 - 50), ESPCipher: 2 * 305, WireGuardPath: 2 * 3 * (200 - 50 - 100), ChaCha: 2 * 610}
	if diff := cmp.Diff(want, c); !ok || diff != "" {
		t.Errorf("%v %s", ok, diff)
	}
	r.Ciphers = nil
	if c, ok := r.compose(wires[0]); ok {
		t.Errorf("without ciphers: %+v", c)
	}
}

func TestWhatWasPublishedIsWhatFactsSay(t *testing.T) {
	for i, want := range []report.Estimate{{Median: 1.309, Low: 1.235, High: 1.382}, {Median: 1.615, Low: 1.538, High: 1.692}} {
		got := faster(i)
		for _, v := range [][2]float64{{got.Median, want.Median}, {got.Low, want.Low}, {got.High, want.High}} {
			if d := v[0] - v[1]; d > 0.001 || d < -0.001 {
				t.Errorf("MTU %d: %s, want %s", published[i].mtu, got, want)
			}
		}
	}
}

// TestRivalsCanBeToldApart: a colour and a name of its own for each in a plot.
func TestRivalsCanBeToldApart(t *testing.T) {
	for _, list := range [][]Rival{Host, Machine} {
		seen := map[string]bool{}
		for _, r := range list {
			for _, s := range []string{"key " + r.Key, "label " + r.Label, r.Colour} {
				if seen[s] {
					t.Errorf("%q of %s is another's", s, r.Label)
				}
				seen[s] = true
			}
		}
	}
}
