package lane

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

func objects(t *testing.T) *Objects {
	t.Helper()
	o, err := NewObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

func site(t *testing.T, o *Objects) *Site {
	t.Helper()
	s, err := NewSite(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func flows(t *testing.T, o *Objects, n int) *Flows {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	var list []Flow
	for i := range 100 {
		list = append(list, Flow{
			Src: netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(256))}), Dst: netip.AddrFrom4([4]byte{10, byte(rng.IntN(256)), 0, 1}),
			SrcPort: 1024, DstPort: 80, Protocol: []uint8{6, 17}[i%2],
		})
	}
	f, err := o.NewFlows(list, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestFramesCrossASite: IP drops what has a wrong checksum or length, so this proves the frames, too.
func TestFramesCrossASite(t *testing.T) {
	const packets = 5000
	o := objects(t)
	s := site(t, o)
	run, closer, err := o.Sender(s, flows(t, o, 128))
	if err != nil {
		t.Fatal(err)
	}
	defer closer()
	var entered, left uint64
	sample := tried(t, run, packets, func() {
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) { // what another try sent may be on its way
			var errs [2]error
			entered, errs[0] = s.Entered()
			left, errs[1] = s.Left()
			if err := errors.Join(errs[:]...); err != nil {
				t.Fatal(err)
			}
			if entered == left {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d entered and %d left", entered, left)
			}
		}
	})
	if sample.Packets != packets || sample.CPU <= 0 || sample.Wall <= 0 {
		t.Errorf("measured %+v", sample)
	}
	// The last frames may still be on their way through the backlog.
	var nowLeft uint64
	for end := time.Now().Add(5 * time.Second); nowLeft < left+packets && time.Now().Before(end); time.Sleep(time.Millisecond) {
		if nowLeft, err = s.Left(); err != nil {
			t.Fatal(err)
		}
	}
	nowEntered, err := s.Entered()
	if nowEntered != entered+packets || nowLeft != left+packets || err != nil {
		t.Errorf("%d entered and %d left of %d: %v", nowEntered-entered, nowLeft-left, packets, err)
	}
}

// tried is retry for who compares counters, which it has taken by look before each try.
func tried(t *testing.T, run Runner, n int, look func()) Sample {
	t.Helper()
	for {
		look()
		s, err := run(n)
		if err == nil {
			return s
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

func TestAFeederRunsTheProgramOnEveryFlow(t *testing.T) {
	o := objects(t)
	s := site(t, o)
	spec := &ebpf.MapSpec{Name: "count", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}
	count, err := ebpf.NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer count.Close()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "GPL", Flags: unix.BPF_F_XDP_HAS_FRAGS,
		Instructions: asm.Instructions{ // *count += ingress_ifindex of struct xdp_md
			asm.LoadMem(asm.R6, asm.R1, 12, asm.Word),
			asm.LoadMapValue(asm.R1, count.FD(), 0),
			asm.AddAtomic.Mem(asm.R1, asm.R6, asm.DWord, 0),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	run, closer, err := o.Feeder(s, flows(t, o, 128), program)
	if err != nil {
		t.Fatal(err)
	}
	defer closer()
	lookup := func(sum *uint64) {
		if err := count.Lookup(uint32(0), sum); err != nil {
			t.Fatal(err)
		}
	}
	var before, sum uint64
	tried(t, run, 1000, func() { lookup(&before) })
	lookup(&sum)
	if want := uint64(1000 * s.UplinkIndex); sum-before != want || want == 0 {
		t.Errorf("the program added up %d, want %d", sum-before, want)
	}
}

func TestATableOfFlowsIsAPowerOfTwoOfSome(t *testing.T) {
	o := objects(t)
	if _, err := o.NewFlows([]Flow{{}}, 100); err == nil {
		t.Error("100 entries were taken")
	}
	if _, err := o.NewFlows(nil, 64); err == nil {
		t.Error("no flows were taken")
	}
}

func TestEveryLaneRunsOnceARoundInAnOrderOfItsOwn(t *testing.T) {
	var order []string
	var lanes []Lane
	for i, name := range []string{"a", "b", "c", "d"} {
		lanes = append(lanes, Lane{Name: name, Repeats: i + 1, Run: func(n int) (Sample, error) {
			order = append(order, name)
			return Sample{Packets: n, CPU: time.Second}, nil
		}})
	}
	const rounds = 20
	got, err := Rounds(t.Context(), rand.New(rand.NewPCG(1, 2)), rounds, lanes)
	if err != nil {
		t.Fatal(err)
	}
	orders := map[[4]string]bool{}
	for round := range slices.Chunk(order, 4) {
		orders[[4]string(round)] = true
		slices.Sort(round)
		if !slices.Equal(round, []string{"a", "b", "c", "d"}) {
			t.Errorf("a round ran %q", round)
		}
	}
	if len(orders) < 5 {
		t.Errorf("%d rounds had only %d orders", rounds, len(orders))
	}
	for i, l := range lanes {
		if s := got[l.Name]; len(s) != rounds || s[0].Packets != i+1 {
			t.Errorf("%s: %v", l.Name, s)
		}
	}
}

func TestRoundsEndWithTheirContextAndWithAnError(t *testing.T) {
	broken := errors.New("broken")
	lanes := []Lane{{Name: "a", Run: func(int) (Sample, error) { return Sample{}, broken }}}
	if _, err := Rounds(t.Context(), rand.New(rand.NewPCG(1, 2)), 1, lanes); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Rounds(ctx, rand.New(rand.NewPCG(1, 2)), 1, lanes); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestRepeatsFollowTheCost(t *testing.T) {
	at := func(each time.Duration) Runner {
		return func(n int) (Sample, error) { return Sample{Packets: n, CPU: each * time.Duration(n)}, nil }
	}
	for _, c := range []struct {
		each time.Duration
		want int
	}{{100, 1000}, {1000, 500}, {100_000, 10}} {
		if n, err := Repeats(at(c.each), 500*time.Microsecond, 10, 1000); n != c.want || err != nil {
			t.Errorf("at %v each: %d repeats, want %d: %v", c.each, n, c.want, err)
		}
	}
}

func TestProcessesOfANamespaceAreThoseThatLiveThere(t *testing.T) {
	var n [2]*Namespace
	for i := range n {
		var err error
		if n[i], err = NewNamespace(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n[i].Close() })
	}
	sleeper := exec.CommandContext(t.Context(), "sleep", "60")
	if err := n[0].Do(sleeper.Start); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait() // it was killed
	}()
	for i, want := range [][]int{{sleeper.Process.Pid}, nil} {
		if got, err := n[i].Processes(); err != nil || !slices.Equal(got, want) {
			t.Errorf("namespace %d: processes %v, %v, want %v", i, got, err, want)
		}
	}
}
