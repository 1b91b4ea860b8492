package progrun_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// permits and denies are generations that a mixture would betray, as in the test of swaps; n makes each another one.
func permits(n uint32) xdp.Generation {
	return generation(classify.Drop,
		classify.Rule{ID: 100 + n, From: prefixes("198.51.100.0/24"), Protocol: classify.AnyProtocol, Action: classify.Drop},
		classify.Rule{ID: 50, From: prefixes("192.0.2.0/24"), Protocol: 17, Action: classify.Accept})
}

func denies(n uint32) xdp.Generation {
	return generation(classify.Accept,
		classify.Rule{ID: 100 + n, From: prefixes("198.51.100.0/24"), Protocol: classify.AnyProtocol, Action: classify.Accept},
		classify.Rule{ID: 60, To: prefixes("203.0.113.0/24"), Protocol: 17, Action: classify.Drop})
}

// liveID is the program in the slot.
func (s *site) liveID(t *testing.T) ebpf.ProgramID {
	t.Helper()
	id, err := pin.At(s.dir).Live(s.hook)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *site) becomes(t *testing.T, g xdp.Generation) ebpf.ProgramID {
	t.Helper()
	converge(t, s.Subsystem, state(g, xdp.Interface{Name: "uplink", Mode: xdp.Native}))
	return s.liveID(t)
}

// Every change is written into the generation that was live two changes before, while packets flow: whoever wrote too soon
// would show one of them a rule of neither.
func TestGenerationsAreRecastUnderFloodAndEveryPacketSeesOne(t *testing.T) {
	frame := frame4(17, udp(1, 2))
	s := newSite(t, permits(0))
	tor := ifindex(t, "tor")
	programs := map[ebpf.ProgramID]int{s.liveID(t): 1}
	programs[s.becomes(t, denies(0))]++
	before, received := s.tally(t, 50, 60), receivedBy(t, "uplink")

	stop, done := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	finish := func() error { once.Do(func() { close(stop) }); return <-done }
	inSameNamespace(t, s.ns, done, func() error { _, err := flood(tor, frame, stop); return err })
	for n := range uint32(40) {
		programs[s.becomes(t, permits(1+n))]++
		s.awaitPacket(t, finish)
		programs[s.becomes(t, denies(1+n))]++
		s.awaitPacket(t, finish)
	}
	if err := finish(); err != nil {
		t.Fatalf("flood: %v", err)
	}
	delta := waitQuiet(t, s, before, 50, 60)
	accepted, dropped := delta.Reasons[abi.ReasonRuleAccept], delta.Reasons[abi.ReasonRuleDrop]
	if len(delta.Reasons) != 2 || accepted.Packets == 0 || dropped.Packets == 0 {
		t.Errorf("reasons %v; want rule-accept and rule-drop alone", delta.Reasons)
	}
	if delta.Rules[50] != accepted || delta.Rules[60] != dropped || len(delta.Rules) != 2 {
		t.Errorf("rules counted %v for %v accepted and %v dropped", delta.Rules, accepted, dropped)
	}
	if got := receivedBy(t, "uplink") - received; got != accepted.Packets+dropped.Packets {
		t.Errorf("the interface received %d packets and %d were judged", got, accepted.Packets+dropped.Packets)
	}
	if len(programs) != 2 {
		t.Errorf("the verifier was asked for %d programs, want 2: %v", len(programs), programs)
	}
}

func TestGoingBackToTheFormerGenerationOnlySwitches(t *testing.T) {
	s := newSite(t, permits(0))
	first := s.liveID(t)
	if s.becomes(t, denies(0)) == first {
		t.Fatal("the live generation was written into")
	}
	if got := s.becomes(t, permits(0)); got != first {
		t.Errorf("program %d is live, want the former one, %d", got, first)
	}
	if e, err := s.Explain(t.Context(), "uplink", frame4(17, udp(1, 2))); err != nil || e.Rule != 50 {
		t.Errorf("explain: %+v, %v", e, err)
	}
}

// What the verifier saw must hold: another constant, or a table that has outgrown its map, is another program.
func TestWhatDoesNotFitIsLoadedAnew(t *testing.T) {
	s := newSite(t, permits(0))
	seen := []ebpf.ProgramID{s.liveID(t), s.becomes(t, denies(0))}
	rules := slices.Clone(permits(1).Ingress.Rules)
	for i := range uint32(2000) {
		rules = append(rules, classify.Rule{ID: 200 + i%700, From: prefixes("192.0.2.0/24"), Protocol: 6,
			Ports: []classify.Range{{First: uint16(i), Last: uint16(i)}}, Action: classify.Drop})
	}
	large := generation(classify.Drop, rules...)
	id := s.becomes(t, large)
	if slices.Contains(seen, id) {
		t.Error("2000 rules were written into the tables of two")
	}
	if digests, err := pin.At(s.dir).Generations("xdp"); err != nil || len(digests) != 2 {
		t.Errorf("generations %v, %v: want two", digests, err)
	}
	if e, err := s.Explain(t.Context(), "uplink", frame4(17, udp(1, 2))); err != nil || e.Rule != 50 {
		t.Errorf("explain: %+v, %v", e, err)
	}
}

func TestASpareIsReadyForTheFirstChange(t *testing.T) {
	s := newSite(t, permits(0))
	first := s.liveID(t)
	if err := pin.At(s.dir).SweepGenerations("xdp", permits(0).Digest()); err != nil { // what a test before left is a spare as well
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.KeepSpares(ctx) }()
	s.WantSpare()
	dir := pin.At(s.dir)
	var spare *pin.Generation
	for deadline := time.Now().Add(30 * time.Second); spare == nil; time.Sleep(10 * time.Millisecond) {
		var err error
		if spare, err = dir.LoadGeneration("xdp", "spare"); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer spare.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	info, err := spare.Programs["live"].Info()
	if err != nil {
		t.Fatal(err)
	}
	want, _ := info.ID()
	if got := s.becomes(t, permits(1)); got != want || got == first {
		t.Errorf("program %d is live, want the spare, %d", got, want)
	}
	if _, err := dir.LoadGeneration("xdp", "spare"); err == nil {
		t.Error("the spare is there still")
	}
}

// TestWhatACrashLeftInARecastGoesWithTheNextSpare: it holds tables of its own, beside those of the live one and of the spare.
func TestWhatACrashLeftInARecastGoesWithTheNextSpare(t *testing.T) {
	s := newSite(t, permits(0))
	s.becomes(t, denies(0))
	half := filepath.Join(s.dir, "gen", "xdp-"+permits(1).Digest()+"-staged")
	if err := os.Rename(filepath.Join(s.dir, "gen", "xdp-"+permits(0).Digest()), half); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.KeepSpares(ctx) }()
	s.WantSpare()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(half); errors.Is(err, fs.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Error("what is half of a generation is there still")
			break
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	s.becomes(t, permits(1))
}

func TestARecastThatFailsLeavesTheLiveGenerationAlone(t *testing.T) {
	s := newSite(t, permits(0))
	live := s.becomes(t, denies(0))
	dir := pin.At(s.dir)
	idle, err := dir.Idle("xdp", map[ebpf.ProgramID]bool{live: true})
	if err != nil || len(idle) != 1 {
		t.Fatalf("idle: %v, %v", idle, err)
	}
	torn := errors.New("killed in the middle")
	if err := dir.RenameGeneration("xdp", idle[0], permits(1).Digest(), func() error { return torn }); !errors.Is(err, torn) {
		t.Errorf("rename: %v", err)
	}
	if digests, _ := dir.Generations("xdp"); !slices.Equal(digests, []string{denies(0).Digest()}) {
		t.Errorf("generations %v: one that is half of something is there", digests)
	}
	if s.liveID(t) != live {
		t.Error("another program is live")
	}
	if s.becomes(t, permits(1)) == live {
		t.Error("the live generation was written into")
	}
}
