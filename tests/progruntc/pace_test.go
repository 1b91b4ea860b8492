package progruntc_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// fullSKBuff is all of struct __sk_buff.
type fullSKBuff struct {
	skBuff
	_        [108]byte
	Tstamp   uint64
	WireLen  uint32
	GSOSegs  uint32
	_        uint64 // sk
	GSOSize  uint32
	_        uint32 // tstamp_type
	HWTstamp uint64
}

// paced bounds what workload 1 sends, with fq on the uplink or without.
func paced(rate uint64, fq bool) func(*tc.State) {
	return func(s *tc.State) {
		s.Generation.Paced = []tc.Paced{{Interface: "wl1", Rate: rate}}
		for i := range s.Interfaces {
			if s.Interfaces[i].Name == "uplink" {
				s.Interfaces[i].FQ = fq
			}
		}
	}
}

// pacing sends what a redirect from a workload brings to the uplink. A test run's packet has a socket.
type pacing struct {
	t       *testing.T
	s       *site
	program *ebpf.Program
	ctx     fullSKBuff
}

func (s *site) pacing(t *testing.T, from string) *pacing {
	t.Helper()
	g := s.live(t)
	name, device := s.program(t, g, "uplink egress")
	p := &pacing{t: t, s: s, program: g.Programs[name]}
	p.ctx.Mark, p.ctx.Ifindex = abi.MarkJudged|abi.MarkPaced, uint32(device.Index)
	p.ctx.IngressIfindex = uint32(index(t, from).Index)
	return p
}

// send returns when the packet is to leave (0: nobody says), and whether it passed.
func (p *pacing) send(line string, wire uint32) (at uint64, passed bool) {
	p.t.Helper()
	in, out := p.ctx, fullSKBuff{}
	in.WireLen = wire
	verdict, err := p.program.Run(&ebpf.RunOptions{Data: frameOf(p.t, line), Context: in, ContextOut: &out})
	if err != nil {
		p.t.Fatal(err)
	}
	if out.Mark != abi.MarkJudged {
		p.t.Errorf("the mark became %#x: it would be paced again, or judged", out.Mark)
	}
	return out.Tstamp, verdict == tcxNext
}

// state is what the map holds of an interface.
func (s *site) pacer(t *testing.T, name string) (p abi.Pacer) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath("pacers", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Lookup(uint32(index(t, name).Index), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// forgetPacer makes an interface one that has sent nothing yet.
func (s *site) forgetPacer(t *testing.T, name string) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath("pacers", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Put(uint32(index(t, name).Index), abi.Pacer{}); err != nil {
		t.Fatal(err)
	}
}

func monotonic(t *testing.T) uint64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return uint64(now.Nano())
}

const (
	flowA = "udp 10.0.1.10:4000 > 198.51.100.7:9"
	flowB = "udp 10.0.1.10:4001 > 198.51.100.7:9"
	mbps  = 1_000_000
)

func TestWhatAPacedWorkloadSendsIsMarkedWhereItComesIn(t *testing.T) {
	s := newSite(t, paced(mbps, true))
	g := s.live(t)
	const udp = " > 198.51.100.7:53"
	for _, c := range []struct {
		what string
		step step
		want uint32
	}{
		{"redirected", step{at: "wl1 ingress", line: "udp 10.0.1.10:4000" + udp}, abi.MarkPaced | abi.MarkJudged},
		{"through the stack", step{at: "wl1 ingress", line: "udp 10.0.1.10:4000" + udp + " ttl=1"}, abi.MarkPaced},
		{"another workload's", step{at: "wl2 ingress", line: "tcp 10.0.1.20:4000 > 10.0.1.10:80"}, 0},
		{"a mark of somebody else's", step{at: "down ingress", line: "udp 192.0.2.9:4000" + udp, mark: abi.MarkPaced}, 0},
		{"what enters by an uplink with fq", step{at: "uplink ingress", line: "tcp 198.51.100.7:4000 > 10.0.1.10:80"}, 0},
	} {
		if got := s.send(t, g, c.step).mark & (abi.MarkPaced | abi.MarkJudged); got&abi.MarkPaced != c.want&abi.MarkPaced {
			t.Errorf("%s: the mark is %#x, want %#x", c.what, got, c.want)
		}
	}
}

// lone sends five packets of one flow and returns when the last one leaves; or that the test was held up, so that a packet came
// after its time and may leave at once.
func (p *pacing) lone() (want uint64, held bool) {
	p.t.Helper()
	before := monotonic(p.t)
	first, ok := p.send(flowA, 1500)
	if now := monotonic(p.t); !ok || first < before || first > now {
		p.t.Fatalf("the first packet leaves at %d (%v), want at once, %d to %d", first, ok, before, now)
	}
	want = first
	for i, wire := range []uint32{1500, 45000, 1500, 100} {
		want += []uint64{12_000_000, 12_000_000, 360_000_000, 12_000_000}[i]
		at, ok := p.send(flowA, wire)
		if ok && at != want && monotonic(p.t) > want {
			return 0, true
		}
		if !ok || at != want {
			p.t.Fatalf("packet %d leaves %d ns after the first (%v), want %d", i+2, at-first, ok, want-first)
		}
	}
	return want, false
}

// TestALoneFlowHasAllOfTheRate: 1500 bytes at 1 Mbit/s are 12 ms, and GSO's 45,000 in one buffer 360.
func TestALoneFlowHasAllOfTheRate(t *testing.T) {
	s := newSite(t, paced(mbps, true))
	p := s.pacing(t, "wl1")
	want, held := p.lone()
	for tries := 1; held; tries++ { // nothing was wrong, but nothing was shown
		if tries == 20 {
			t.Fatal("in 20 tries no five packets came as fast as the rate wants them")
		}
		s.forgetPacer(t, "wl1")
		want, held = p.lone()
	}
	got := s.pacer(t, "wl1")
	if want += 800_000; got.Next != want<<abi.PaceTickBits || got.Active == 0 || got.Dropped != 0 {
		t.Errorf("the rate has room at %d, want %d: %+v", got.Next>>abi.PaceTickBits, want, got)
	}
	early := monotonic(t)
	live, err := s.Pacing(context.Background())
	late := monotonic(t)
	if err != nil || len(live) != 1 || live[0].Interface != "wl1" || live[0].Rate != mbps || live[0].Flows != 1 {
		t.Fatalf("pacing is %+v, %v", live, err)
	}
	if b, most, least := int64(live[0].Backlog), int64(want-early), int64(want-late); b > max(most, 0) || b < max(least, 0) {
		t.Errorf("the backlog is %d ns, want %d to %d", b, least, most)
	}
}

func TestAFlowWithinItsShareDoesNotWaitBehindOneThatIsNot(t *testing.T) {
	s := newSite(t, paced(mbps, true))
	p := s.pacing(t, "wl1")
	for range 100 { // 1.2 s
		p.send(flowA, 1500)
	}
	now := monotonic(t)
	first, ok := p.send(flowB, 100)
	if !ok || first < now || first > monotonic(t) {
		t.Fatalf("a ping beside it leaves %d ns from now (%v)", int64(first-now), ok)
	}
	// Of two flows each has half, and an eighth less while the rate is behind: 100 bytes take 1.8 ms.
	if second, ok := p.send(flowB, 100); !ok || second != first+1_800_000 && second > monotonic(t) {
		t.Errorf("its next packet leaves %d ns later (%v), want 1800000", second-first, ok)
	}
	// It is paid for: the other one's next packet leaves 1.6 ms later than it would have.
	if got, want := s.pacer(t, "wl1"), 2; got.Dropped != 0 || live(got) != want {
		t.Errorf("%d flows are active and %d packets dropped, want %d and none", live(got), got.Dropped, want)
	}
}

func live(p abi.Pacer) (n int) {
	for at := range uint64(abi.PaceFlows) {
		n += int(p.Active >> at & 1)
	}
	return n
}

// TestWithoutFQWhatIsBeyondTheRateIsDropped, but only of the flow that is beyond its share.
func TestWithoutFQWhatIsBeyondTheRateIsDropped(t *testing.T) {
	s := newSite(t, paced(mbps, false))
	p := s.pacing(t, "wl1")
	begin := time.Now()
	s.counted(t, "uplink")
	passed := 0
	for range 200 {
		at, ok := p.send(flowA, 1500)
		if at != 0 {
			t.Fatalf("a packet got a departure time that nobody keeps: %d", at)
		}
		if ok {
			passed++
		}
	}
	// A packet is 12 ms, and an eighth more once three have passed; what is ahead by 200 ms goes no further. The rest comes again at
	// the rate.
	if most := 16 + int(time.Since(begin)/(12*time.Millisecond)) + 1; passed < 16 || passed > most {
		t.Errorf("%d packets passed, want 16 to %d", passed, most)
	}
	if n := s.counted(t, "uplink"); n[abi.ReasonPacedDrop] != uint64(200-passed) || n[abi.ReasonJudged] != uint64(passed) {
		t.Errorf("of 200 packets %d passed, and the counters say %v", passed, n)
	}
	if got := s.pacer(t, "wl1"); got.Dropped != uint64(200-passed) {
		t.Errorf("the pacer says it dropped %d of %d", got.Dropped, 200-passed)
	}
	for n := range 3 {
		if _, ok := p.send(flowB, 1500); !ok {
			t.Errorf("packet %d of another flow was dropped", n+1)
		}
	}
}

// TestCPUsNeverGetTheSameTime: together they take what they took, and more only where there were none.
func TestCPUsNeverGetTheSameTime(t *testing.T) {
	const runs, wire = 300, 18750 // 1.5 ms of 100 Mbit/s
	s := newSite(t, paced(100*mbps, true))
	p := s.pacing(t, "wl1")
	before := monotonic(t)
	p.send(flowA, wire)
	data := frameOf(t, flowA)
	p.ctx.WireLen = wire
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range runs { // one at a time: the kernel repeats a run on the packet that the last one left
				if _, err := p.program.Run(&ebpf.RunOptions{Data: data, Context: p.ctx}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	got := s.pacer(t, "wl1")
	const all = (4*runs + 1) * 1_500_000
	if end := got.Next >> abi.PaceTickBits; got.Dropped != 0 || end < before+all || end > monotonic(t)+all {
		t.Errorf("%d packets of 1.5 ms end %d ns after they began, and %d were dropped", 4*runs+1, end-before, got.Dropped)
	}
}

func TestABandwidthIsStateAndItsRateBelongsToTheGeneration(t *testing.T) {
	s := newSite(t, paced(mbps, true))
	p := s.pacing(t, "wl1")
	first, _ := p.send(flowA, 1500)
	change := func(f func(*tc.State)) {
		want := baseline()
		f(&want)
		s.converge(t, want)
		p = s.pacing(t, "wl1")
	}
	change(paced(10*mbps, true))
	if second, _ := p.send(flowA, 1500); second != first+12_000_000 && second > monotonic(t) {
		t.Errorf("after a change of the rate the next packet leaves %d ns after the first, want 12000000", second-first)
	}
	change(func(*tc.State) {})
	p.ctx.Mark = abi.MarkJudged | abi.MarkPaced
	if at, ok := p.send(flowA, 1500); !ok || at != 0 {
		t.Errorf("a packet that was marked under the last generation leaves at %d (%v)", at, ok)
	}
	if live, err := s.Pacing(context.Background()); err != nil || len(live) != 0 {
		t.Errorf("nothing is paced any more, and pacing is %+v, %v", live, err)
	}
	m, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath("pacers", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Lookup(p.ctx.IngressIfindex, &abi.Pacer{}); err == nil {
		t.Error("its state is still there")
	}
}
