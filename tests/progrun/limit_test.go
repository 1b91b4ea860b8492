package progrun_test

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/table"
)

const (
	limitID  = 40
	beyondID = 41
)

// slow is a limit of so many frames of dns(), of which none comes again while a test runs: at one bit per second each takes
// 13 minutes.
func slow(frames int, perSource bool) classify.Limiter {
	return classify.Limiter{Rule: limitID, Beyond: beyondID, Rate: 1, Burst: uint64(frames * frameSize), Bits: true,
		PerSource: perSource, IPv4Bits: 24, IPv6Bits: 56}
}

const frameSize = 100

// limited is a generation whose rule limits UDP to port 53, and that drops by default.
func limited(l classify.Limiter) xdp.Generation {
	g := generation(classify.Drop, classify.Rule{ID: limitID, Protocol: 17, Ports: []classify.PortRange{{First: 53, Last: 53}},
		Action: classify.Limit})
	g.Limiters = []classify.Limiter{l}
	return g
}

// dns is a frame of frameSize bytes to the limited port.
func dns(from string) []byte {
	return from4(from, frame4(17, udp(1000, 53, make([]byte, frameSize-42)...)))
}

// passes sends n of the frame and says how many passed.
func (s *site) passes(t testing.TB, n int, frame []byte) int {
	t.Helper()
	passed := 0
	for range n {
		if run(t, s.live, s.uplink, frame) == xdpPass {
			passed++
		}
	}
	return passed
}

func wantPassed(t testing.TB, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d packets passed, want %d", what, got, want)
	}
}

func TestALimitAcceptsItsBurstAndDropsTheRest(t *testing.T) {
	s := newSite(t, limited(slow(3, false)))
	for range 2 {
		s.check(t, "within the limit", dns("192.0.2.1"), abi.ReasonLimitAccept)
	}
	wantPassed(t, "the last within it", s.passes(t, 1, dns("192.0.2.1")), 1)
	s.last = s.tally(t)
	s.check(t, "beyond it, from anybody", dns("198.51.100.1"), abi.ReasonLimitDrop)
	s.check(t, "the rule is about another port", frame4(17, udp(1000, 54)), abi.ReasonDefaultDrop)
	drops, err := s.beyond()
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint32]xdp.Count{limitID: {Packets: 1, Bytes: frameSize}}
	if diff := cmp.Diff(want, drops); diff != "" {
		t.Errorf("beyond the limit (-want +got):\n%s", diff)
	}
	if got := hits(t, s.hits, limitID); got.Packets != 4 {
		t.Errorf("the rule matched %+v, want what conforms and what does not", got)
	}
}

func TestEverySourceHasABucketOfItsOwn(t *testing.T) {
	s := newSite(t, limited(slow(2, true)))
	wantPassed(t, "one source", s.passes(t, 5, dns("192.0.2.1")), 2)
	wantPassed(t, "another of its /24", s.passes(t, 5, dns("192.0.2.200")), 0)
	wantPassed(t, "the next /24", s.passes(t, 5, dns("192.0.3.1")), 2)
	six := ether(typeIP6, ip6(17, 64, src6, udp(1000, 53, make([]byte, frameSize-62)...)))
	wantPassed(t, "an IPv6 source", s.passes(t, 5, six), 2)
	six[14+8+7] ^= 1 // bit 64 of the source: the same /56
	wantPassed(t, "another /64 of its /56", s.passes(t, 5, six), 0)
	six[14+8+6] ^= 1
	wantPassed(t, "the next /56", s.passes(t, 5, six), 2)
}

func TestBucketsOutliveTheirGenerationAndTheDaemon(t *testing.T) {
	for _, perSource := range []bool{false, true} {
		s := newSite(t, limited(slow(4, perSource)))
		wantPassed(t, "a full bucket", s.passes(t, 3, dns("192.0.2.1")), 3)
		other := limited(slow(4, perSource))
		other.Ingress.Rules = append(other.Ingress.Rules, classify.Rule{ID: 50, Name: "new", Protocol: 6, Action: classify.Accept})
		s.load(t, other)
		wantPassed(t, "the rest of it, in another generation", s.passes(t, 3, dns("192.0.2.1")), 1)

		s.Subsystem = xdp.New(quiet(), xdp.Options{BPFDir: s.dir})
		s.load(t, limited(slow(4, perSource)))
		wantPassed(t, "after a restart", s.passes(t, 3, dns("192.0.2.1")), 0)
		drops, err := s.beyond()
		if err != nil || drops[limitID].Packets != 5 {
			t.Errorf("beyond the limit since the rule is there: %v, %v", drops, err)
		}

		s.load(t, limited(classify.Limiter{Rule: limitID, Beyond: beyondID, Rate: 1_000_000, Burst: 10, PerSource: perSource, IPv4Bits: 24, IPv6Bits: 56}))
		if got := s.passes(t, 5, dns("192.0.2.1")); got != 5 {
			t.Errorf("of 5 packets %d pass at the new rate", got)
		}
	}
}

// TestALimitMayComeLater: the tables that it needs are made then, and grow with the ids of rules.
func TestALimitMayComeLater(t *testing.T) {
	for _, perSource := range []bool{false, true} {
		without := generation(classify.Drop, classify.Rule{ID: 9, Protocol: 17, Action: classify.Accept})
		s := newSite(t, without)
		wantPassed(t, "without a limit", s.passes(t, 5, dns("192.0.2.1")), 5)
		s.load(t, limited(slow(4, perSource)))
		wantPassed(t, "with one", s.passes(t, 3, dns("192.0.2.1")), 3)

		const farID = 3000
		far := slow(2, perSource)
		far.Rule, far.Beyond = farID, farID+1
		both := limited(slow(4, perSource))
		both.Ingress.Rules = append(both.Ingress.Rules, classify.Rule{ID: farID, Protocol: 17, Action: classify.Limit, Argument: 1})
		both.Limiters = append(both.Limiters, far)
		s.load(t, both)
		wantPassed(t, "the rest of its burst, beside another limit", s.passes(t, 3, dns("192.0.2.1")), 1)
		wantPassed(t, "the other one's", s.passes(t, 3, from4("192.0.2.1", frame4(17, udp(1000, 54, make([]byte, frameSize-42)...)))), 2)

		s.load(t, without)
		wantPassed(t, "without limits again", s.passes(t, 5, dns("192.0.2.1")), 5)
		s.load(t, both)
		wantPassed(t, "they are back, and know all", s.passes(t, 3, dns("192.0.2.1")), 0)
	}
}

// TestExplainTakesNoToken: the twin says what the next packet meets, and leaves all state as it is.
func TestExplainTakesNoToken(t *testing.T) {
	for _, perSource := range []bool{false, true} {
		s := newSite(t, limited(slow(1, perSource)))
		ask := func(from string, want abi.Reason) {
			t.Helper()
			said := s.explain(t, s.uplink, dns(from))
			if abi.Reason(said.Reason) != want || said.Rule != limitID || said.Decided != 1 || said.Policy != uint32(abi.PolicyIngress) {
				t.Errorf("explain of %s: %s by %+v, want %s", from, abi.Reason(said.Reason), said, want)
			}
		}
		states := func() []any {
			var out []any
			for _, name := range []string{"limit-buckets", "limit-sources"} {
				m := s.openMap(t, name, 2)
				var all [][]byte
				var key uint32
				var value []byte
				for entries := m.Iterate(); entries.Next(&key, &value); {
					for _, b := range value {
						if b != 0 {
							all = append(all, value)
							break
						}
					}
				}
				out = append(out, all)
			}
			p, err := s.LimitPressure(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return append(out, p)
		}
		for range 5 {
			ask("192.0.2.1", abi.ReasonLimitAccept)
		}
		if diff := cmp.Diff([]any{[][]byte(nil), [][]byte(nil), table.Pressure{}}, states()); diff != "" {
			t.Errorf("explain wrote (-want +got):\n%s", diff)
		}
		wantPassed(t, "the token is still there", s.passes(t, 2, dns("192.0.2.1")), 1)
		before := states()
		ask("192.0.2.1", abi.ReasonLimitDrop)
		if perSource {
			ask("198.51.100.1", abi.ReasonLimitAccept)
		}
		if diff := cmp.Diff(before, states()); diff != "" {
			t.Errorf("explain wrote (-want +got):\n%s", diff)
		}
	}
}

// TestAShadowLimitCountsWhatItWouldDrop and drops nothing, neither by itself nor out of the bucket of the limit that is behind it.
func TestAShadowLimitCountsWhatItWouldDrop(t *testing.T) {
	for _, perSource := range []bool{false, true} {
		const liveID = 50
		live := slow(4, perSource)
		live.Rule, live.Beyond = liveID, liveID+1
		g := limited(slow(2, perSource))
		g.Ingress.Rules[0].Shadow = true
		g.Ingress.Rules = append(g.Ingress.Rules, classify.Rule{ID: liveID, Protocol: 17, Action: classify.Limit, Argument: 1})
		g.Limiters = append(g.Limiters, live)
		s := newSite(t, g)
		ask := func() {
			t.Helper()
			if said := s.explain(t, s.uplink, dns("192.0.2.1")); abi.Reason(said.Reason) != abi.ReasonLimitAccept || said.Rule != liveID {
				t.Errorf("explain: %s by %+v", abi.Reason(said.Reason), said)
			}
		}
		ask()
		wantPassed(t, "the live limit's burst", s.passes(t, 3, dns("192.0.2.1")), 3)
		ask() // and nothing is counted
		wantPassed(t, "the rest of it", s.passes(t, 2, dns("192.0.2.1")), 1)
		for id, want := range map[uint32]uint64{limitID: 5, beyondID: 3, liveID: 5, liveID + 1: 1} {
			if got := hits(t, s.hits, id); got.Packets != want {
				t.Errorf("per source %v: counter %d is %+v, want %d packets", perSource, id, got, want)
			}
		}
	}
}

// TestAShadowLimitIsLoggedWhereItsRuleSaysSo: it is asked in either case.
func TestAShadowLimitIsLoggedWhereItsRuleSaysSo(t *testing.T) {
	for _, sample := range []uint32{0, 1} {
		g := limited(slow(1, false))
		g.Ingress.Default = classify.Accept
		g.Ingress.Rules[0].Shadow, g.Ingress.Rules[0].Sample = true, sample
		g.Ingress.Rules = append(g.Ingress.Rules, classify.Rule{ID: 50, Protocol: 6, Action: classify.Accept, Sample: 1})
		s := newSite(t, g)
		h, stop := s.watchSamples(t, xdp.WatchLogs, 1_000_000)
		wantPassed(t, "in shadow mode", s.passes(t, 3, dns("192.0.2.1")), 3)
		run(t, s.live, s.uplink, frame4(6, tcp(1, 2)))
		h.await(t, "the last packet's log", func() bool {
			return slices.ContainsFunc(h.drops, func(l xdp.Sample) bool { return l.Rule == 50 })
		})
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := hits(t, s.hits, beyondID); got.Packets != 2 {
			t.Errorf("%+v would have been dropped, want 2", got)
		}
		if got := len(h.drops) - 1; got != int(3*sample) || got > 0 && (h.drops[0].Rule != limitID || h.drops[0].Fate != abi.EventShadow) {
			t.Errorf("with a sample of %d there were %d logs: %+v", sample, got, h.drops)
		}
	}
}

// TestTheTableOfSourcesHasAKeyOfItsOwn: it is random, and stays for as long as the table.
func TestTheTableOfSourcesHasAKeyOfItsOwn(t *testing.T) {
	seed := func(s *site) (n uint64) {
		t.Helper()
		if err := s.openMap(t, "limit-seed", 1).Lookup(uint32(0), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	one, other := newSite(t, limited(slow(1, true))), newSite(t, limited(slow(1, true)))
	first := seed(one)
	if first == 0 || first == seed(other) {
		t.Errorf("keys %#x and %#x", first, seed(other))
	}
	other.load(t, limited(slow(2, true)))
	again := seed(other)
	other.load(t, limited(slow(1, true)))
	if got := seed(other); got != again {
		t.Errorf("the key became %#x from %#x: every source lost its bucket", got, again)
	}
}

// beyond is what was dropped beyond the limit, by its rule.
func (s *site) beyond() (map[uint32]xdp.Count, error) {
	hits, err := xdp.RuleHits(s.dir)
	return map[uint32]xdp.Count{limitID: hits[beyondID].Count}, err
}
