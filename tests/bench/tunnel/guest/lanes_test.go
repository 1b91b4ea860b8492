//go:build vmguest

package guest

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/tests/bench/load"
	"sluice/tests/bench/tunnel/trial"
)

// lanes are all ways from gateway to gateway, by the names that the report knows.
var lanes = []struct {
	key      string
	overhead int // bytes that a packet grows by, over IPv4
	carries  int // IP protocol on the wire
	load     func(t *testing.T, s *trial.Site)
}{
	{"plain", 0, trial.TCP, func(t *testing.T, s *trial.Site) { must(t, s.Plain()) }},
	{"wireguard", 60, trial.UDP, wireGuard},
	{"esp-gcm", 54, trial.ESP, ipsecByDriver},
	{"esp-chacha", 54, trial.ESP, esp(chaCha)},
	{"esp-null", 54, trial.ESP, esp(null)},
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tell is for the host to read.
func tell(t *testing.T, mark string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	fmt.Printf("\n%s%s\n", mark, text)
}

func options(t *testing.T) (o trial.Options) {
	t.Helper()
	text, err := os.ReadFile("/options.json")
	must(t, err)
	must(t, json.Unmarshal(text, &o))
	return o
}

// open makes all lanes but those that are left out, and holds them to what they claim.
func open(t *testing.T, o trial.Options, p trial.Plan, without ...string) (out []*trial.Lane) {
	t.Helper()
	for _, l := range lanes {
		if slices.Contains(without, l.key) {
			continue
		}
		p.Overhead = l.overhead
		s, err := trial.NewSite(p)
		must(t, err)
		t.Cleanup(func() { must(t, s.Close()) })
		l.load(t, s)
		made := &trial.Lane{Key: l.key, Site: s, Carries: l.carries, Message: o.Message}
		if err := made.Check(t.Context()); err != nil {
			t.Fatalf("%s: %v", l.key, err)
		}
		out = append(out, made)
	}
	return out
}

// TestLanes is for a machine with one CPU whose clock counts instructions. Nothing waits there for anything but that CPU, so
// the time that something takes is the instructions that it took, kernel threads included.
func TestLanes(t *testing.T) {
	o, g := options(t), load.With("/bin/load")
	for _, w := range o.Wires {
		t.Run(w.String(), func(t *testing.T) {
			all := open(t, o, trial.Plan{Wire: w, Paths: 1})
			for _, s := range trial.Shapes([]trial.Wire{w}) {
				turns := trial.Turns{Rounds: o.Rounds, Each: o.RR, Cost: func(r load.Result) time.Duration { return r.Wall }}
				if s.Kind == trial.Stream {
					turns.Each = o.Stream
				}
				got, err := turns.Measure(t.Context(), g, all, s)
				must(t, err)
				for _, m := range got {
					tell(t, trial.MeasurementMark, m)
				}
			}
		})
	}
	tell(t, trial.CryptoMark, crypto(t))
}

// TestSpread is for a machine with several CPUs, likewise.
func TestSpread(t *testing.T) {
	o, g := options(t), load.With("/bin/load")
	for _, layout := range o.Layouts {
		t.Run(layout.String(), func(t *testing.T) {
			all := open(t, o, trial.Plan{Wire: trial.Wire{MTU: 1500}, Paths: layout.Tunnels, CPUs: o.CPUs}, "esp-chacha", "esp-null")
			for _, l := range all {
				got, err := l.MeasureSpread(t.Context(), g, layout.Flows, o.SpreadRounds, o.Spread)
				must(t, err)
				tell(t, trial.SpreadMark, got)
			}
		})
	}
}

// crypto reads what the kernel has for the ciphers of ESP: of each name the first driver, which is the one of highest
// priority that was loaded. WireGuard's code is chosen by the flags.
func crypto(t *testing.T) trial.Crypto {
	t.Helper()
	out := trial.Crypto{Drivers: map[string]string{}}
	text, err := os.ReadFile("/proc/crypto")
	must(t, err)
	name, best := "", map[string]int{}
	driver := ""
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "name":
			name = value
		case "driver":
			driver = value
		case "priority":
			var priority int
			_, err := fmt.Sscan(value, &priority)
			must(t, err)
			if wanted(name) && (out.Drivers[name] == "" || priority > best[name]) {
				out.Drivers[name], best[name] = driver, priority
			}
		}
	}
	cpu, err := os.ReadFile("/proc/cpuinfo")
	must(t, err)
	for line := range strings.Lines(string(cpu)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "flags" && out.Flags == nil {
			for _, flag := range strings.Fields(value) {
				if slices.Contains([]string{"aes", "pclmulqdq", "ssse3", "avx", "avx2", "vaes", "vpclmulqdq", "avx512f", "avx512vl"}, flag) {
					out.Flags = append(out.Flags, flag)
				}
			}
		}
	}
	return out
}

func wanted(name string) bool {
	return slices.Contains([]string{"rfc4106(gcm(aes))", "rfc7539esp(chacha20,poly1305)", "chacha20", "poly1305"}, name)
}
