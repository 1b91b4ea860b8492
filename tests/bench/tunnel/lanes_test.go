package main

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/tests/bench/tunnel/trial"
)

// tiny is a run of no use but to see that all of it works.
var tiny = Options{
	Name: "tiny", Rounds: 1, RR: 5 * time.Millisecond, Stream: 5 * time.Millisecond, Wires: wires, Ciphers: Ciphers{1, []int{1440}},
	Peers: Peers{Sizes: []Size{{1, 3}}, Rounds: 1, Changes: 1, Ways: ways[2:3], Idle: 100 * time.Millisecond},
	Machine: trial.Options{
		Rounds: 1, RR: 5 * time.Millisecond, Stream: 5 * time.Millisecond, Message: 1 << 16, Wires: wires[:1], CPUs: 1, SpreadRounds: 1, Spread: 20 * time.Millisecond,
		Layouts: []trial.Layout{{Tunnels: 2, Flows: 3}},
	},
}

func tinyBench(t *testing.T) *bench {
	t.Helper()
	b, err := newBench(t.Context(), slog.New(slog.DiscardHandler), tiny, &Results{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func checkLanes(t *testing.T, list []trial.Measurement, lanes []Rival, wires []trial.Wire) {
	t.Helper()
	if want := len(lanes) * len(trial.Shapes(wires)); len(list) != want {
		t.Errorf("%d measurements, want %d", len(list), want)
	}
	for _, s := range trial.Shapes(wires) {
		for _, l := range lanes {
			if m := find(list, s, l.Key); len(m.Cost) != 1 || m.Cost[0] <= 0 || len(m.Rate) != 1 || m.Rate[0] <= 0 || (s.Kind == trial.RR) != (len(m.P50) == 1 && len(m.P99) == 1) {
				t.Errorf("%s, %s: %+v", l.Label, s, m)
			}
		}
	}
}

// TestEveryLaneOfTheHostIsMeasured: each is held to what it claims before that.
func TestEveryLaneOfTheHostIsMeasured(t *testing.T) {
	b := tinyBench(t)
	if err := b.host(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkLanes(t, b.results.Host, Host, tiny.Wires)
}

func TestBothLanesOfAHubAreMeasured(t *testing.T) {
	b := tinyBench(t)
	if err := b.peers(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{SluiceHub, RivalHub} {
		i := slices.IndexFunc(b.results.Hubs, func(h Hub) bool { return h.Lane == name })
		if i < 0 {
			t.Fatalf("%s was not measured", name)
		}
		h := b.results.Hubs[i]
		for what, list := range map[string][]float64{"apply": h.Apply, "change": h.Change, "CPU of applies": h.ApplyCPU, "CPU of changes": h.ChangeCPU} {
			if len(list) != 1 || list[0] <= 0 {
				t.Errorf("%s, %s: %v", name, what, list)
			}
		}
	}
	for _, c := range tiny.Peers.Ways {
		want := 1
		if c.rival {
			want = 2
		}
		got := 0
		for _, i := range b.results.Idle {
			if i.What == c.What && i.Percent >= i.Tunnels {
				got++
			}
		}
		if got != want {
			t.Errorf("%s: %d lanes were measured, want %d", c.What, got, want)
		}
	}
}

func TestAFarEndAnswersEchoRequests(t *testing.T) {
	// 10.1.0.1 asks 10.2.0.2, with the checksum over type, code, identifier 1, sequence 2 and no data.
	request := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 1, 0, 1, 10, 2, 0, 2, 8, 0, 0xf7, 0xfc, 0, 1, 0, 2}
	answer := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 2, 0, 2, 10, 1, 0, 1, 0, 0, 0xff, 0xfc, 0, 1, 0, 2}
	if got := echoed(request); !slices.Equal(got, answer) {
		t.Errorf("% x, want % x", got, answer)
	}
	other := slices.Clone(request)
	other[20] = 0
	if echoed(other) != nil || echoed(request[:27]) != nil || echoed(nil) != nil {
		t.Error("what is no echo request is answered")
	}
}

func TestEveryLaneOfTheMachineIsMeasured(t *testing.T) {
	t.Parallel()
	b := tinyBench(t)
	if err := b.machine(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := b.results
	checkLanes(t, r.Inside, Machine, tiny.Machine.Wires)
	for _, l := range tiny.Machine.Layouts {
		for _, key := range []string{Plain, WireGuard, ESPGCM} {
			s := r.spread(l, key)
			if len(s.MB) != 1 || s.MB[0] <= 0 || len(s.Wall) != 1 || s.Wall[0] <= 0 || len(s.Busy) != 1 || len(s.Busy[0]) != 1 || slices.Max(s.Busy[0]) <= 0 {
				t.Errorf("%s, %s: %+v", l, key, s)
			}
		}
	}
	// Generic code would say nothing of what a kernel does where there are instructions for AES.
	if d := r.Crypto.Drivers["rfc4106(gcm(aes))"]; !strings.Contains(d, "aesni") || !slices.Contains(r.Crypto.Flags, "aes") || !strings.HasPrefix(r.GuestKernel, "6.12") {
		t.Errorf("the machine has %+v, Linux %s", r.Crypto, r.GuestKernel)
	}
}

func TestCiphersAreMeasured(t *testing.T) {
	b := tinyBench(t)
	if err := b.ciphers(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{aesGCM, chaCha} {
		if c := b.results.cipher(name, 1440); len(c.Micros) != 1 || c.Micros[0] <= 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if !strings.HasPrefix(b.results.OpenSSL, "OpenSSL ") {
		t.Errorf("the version is %q", b.results.OpenSSL)
	}
}

func TestWhatOpenSSLSaysIsRead(t *testing.T) {
	if v, err := speed("+DT:aes-256-gcm:1:1440\n+R:1000:aes-256-gcm:1.000000\n+F:22:aes-256-gcm:1440000.00\n"); v != 1440000 || err != nil {
		t.Errorf("read %v: %v", v, err)
	}
	for _, text := range []string{"", "+F:22:aes-256-gcm:0.00\n", "+F:22:aes-256-gcm:fast\n"} {
		if v, err := speed(text); err == nil {
			t.Errorf("%q is %v", text, v)
		}
	}
}

func TestALaneThatPretendsIsAnError(t *testing.T) {
	s, err := trial.NewSite(trial.Plan{Wire: trial.Wire{MTU: 1500}, Paths: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Plain(); err != nil {
		t.Fatal(err)
	}
	l := trial.Lane{Key: "in clear", Site: s, Carries: trial.ESP}
	if err := l.Check(t.Context()); !errors.Is(err, trial.ErrPretends) {
		t.Errorf("error %v", err)
	}
	l.Carries = trial.TCP
	if err := l.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestPathsBesideEachOtherAllCarry: the machine's tunnels have one each.
func TestPathsBesideEachOtherAllCarry(t *testing.T) {
	s, err := trial.NewSite(trial.Plan{Wire: trial.Wire{MTU: 9000, Offload: true}, Paths: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Plain(); err != nil {
		t.Fatal(err)
	}
	if err := (&trial.Lane{Site: s, Carries: trial.TCP}).Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhatTheMachinePrintsIsRead(t *testing.T) {
	r := &Results{}
	const console = "=== RUN TestLanes\nTRIAL {\"Lane\":\"plain\",\"Cost\":[7]}\n\nTRIAL {\"Lane\":\"wireguard\"}\nSPREAD {\"Lane\":\"plain\",\"MB\":[1]}\nCRYPTO {\"Flags\":[\"aes\"]}\nPASS\n"
	if err := r.read(console); err != nil || len(r.Inside) != 2 || r.Inside[0].Cost[0] != 7 || len(r.Spreads) != 1 || len(r.Crypto.Flags) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := r.read("TRIAL {\"Lane\":"); err == nil {
		t.Error("half a line was read")
	}
}

func TestARunIsRefusedWithAnUnknownSizeOrPart(t *testing.T) {
	for _, args := range [][]string{{"-size", "huge"}, {"-redraw", "-out", t.TempDir()}, {"-only", "nothing", "-out", t.TempDir()}} {
		if err := commandLine(&Results{}).Run(t.Context(), args); err == nil {
			t.Errorf("%q ran", args)
		}
	}
}

func TestAProcessThatCannotStartSaysWhy(t *testing.T) {
	b := tinyBench(t)
	s, err := trial.NewSite(trial.Plan{Wire: trial.Wire{MTU: 1500}, Paths: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	p, err := b.w.start(t.Context(), s.A.Box, "sh", "-c", "trap '' INT; echo no tunnel >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	// Nobody may ask it to end before it has said why.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if pids, err := s.A.Box.Processes(); err != nil || len(pids) == 0 || time.Now().After(end) {
			break
		}
	}
	if err := p.stop(); err == nil || !strings.Contains(err.Error(), "no tunnel") {
		t.Errorf("error %v", err)
	}
}

func TestWorkOnSeveralCPUsIsAddedUp(t *testing.T) {
	s := trial.Spread{MB: []float64{2, 4}, Wall: []float64{4, 2}, Busy: [][]float64{{1, 3, 0, 0}, {2, 2, 2, 1}}}
	if got := total(s); !slices.Equal(got, []float64{2000, 500}) {
		t.Errorf("in all %v", got)
	}
	if got := atOnce(s); !slices.Equal(got, []float64{1, 3.5}) {
		t.Errorf("at once %v", got)
	}
}
