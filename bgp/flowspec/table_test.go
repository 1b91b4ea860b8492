package flowspec_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/bgp/flowspec"
)

var (
	torA, torB = netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.1.1")
	noon       = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	discard    = []byte{0x80, 0x06, 0, 0, 0, 0, 0, 0}
)

// book is a Table that accepts from both ToRs, and a made-up clock.
type book struct {
	*flowspec.Table
	t   *testing.T
	now time.Time
	rib flowspec.RIB
}

func newBook(t *testing.T, most int) *book {
	b := &book{Table: flowspec.NewTable(), t: t, now: noon, rib: routes{}}
	b.SetPolicy(flowspec.Policy{Trust: flowspec.Trust{torA, torB}, Max: most, Keep: time.Minute})
	return b
}

// port is a rule about a destination port.
func port(n byte) []byte { return []byte{5, 0x81, n} }

func (b *book) announce(from netip.Addr, components []byte, communities ...byte) error {
	return b.Announce(flowspec.Announcement{Origin: flowspec.Origin{Neighbor: from, Originator: from, External: true, FirstAS: 65000},
		Family: flowspec.IPv4, Components: components, Communities: communities}, b.now)
}

func (b *book) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// holds compares what Judge returns: neighbor's last octet but one, rule, actions, age in seconds.
func (b *book) holds(want ...string) {
	b.t.Helper()
	var got []string
	all, _ := b.Judge(b.rib)
	for _, r := range all {
		line := fmt.Sprintf("%s %s %s %.0fs", map[netip.Addr]string{torA: "a", torB: "b"}[r.Origin.Neighbor], r.Name,
			flowspec.ActionsText(r.Actions), b.now.Sub(r.Since).Seconds())
		if !r.Stale.IsZero() {
			line += fmt.Sprintf(" stale %.0fs", b.now.Sub(r.Stale).Seconds())
		}
		if r.Refused != "" {
			line += ": " + r.Refused + map[bool]string{true: " (unasked)"}[r.Unasked]
		}
		got = append(got, line)
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		b.t.Fatalf("holds\n%s\nwant\n%s", g, w)
	}
}

func TestRulesComeChangeAndGoInTheirOrder(t *testing.T) {
	b := newBook(t, 10)
	b.must(b.announce(torA, port(53)))
	b.must(b.announce(torB, port(22), discard...))
	b.holds("b flow4 { dport = 22; } discard 0s", "a flow4 { dport = 53; } accept 0s")
	b.now = b.now.Add(time.Second)
	b.must(b.announce(torB, port(22), discard...)) // nothing new
	b.must(b.announce(torA, port(53), discard...))
	b.holds("b flow4 { dport = 22; } discard 1s", "a flow4 { dport = 53; } discard 0s")
	b.Withdraw(torA, flowspec.IPv4, port(22)) // not its own
	b.Withdraw(torB, flowspec.IPv6, port(22)) // another family's
	b.Withdraw(torA, flowspec.IPv4, port(53))
	b.holds("b flow4 { dport = 22; } discard 1s")
	b.Forget(torB)
	b.holds()
}

func TestRulesOutliveTheirSessionForAWhile(t *testing.T) {
	b := newBook(t, 10)
	b.must(b.announce(torA, port(53), discard...))
	b.must(b.announce(torB, port(80), discard...))
	if next := b.Expire(b.now); !next.IsZero() {
		t.Fatalf("nothing is stale, and the next look is at %v", next)
	}
	b.now = b.now.Add(10 * time.Second)
	b.Down(torA, b.now)
	down := b.now
	b.now = b.now.Add(10 * time.Second)
	b.Down(torA, b.now) // the second try to connect: the age does not begin anew
	if next := b.Expire(b.now); !next.Equal(down.Add(time.Minute)) {
		t.Fatalf("the next look is at %v, want a minute after %v", next, down)
	}
	b.holds("a flow4 { dport = 53; } discard 20s stale 10s", "b flow4 { dport = 80; } discard 20s")
	b.now = down.Add(time.Minute - 1)
	b.Expire(b.now)
	b.holds("a flow4 { dport = 53; } discard 70s stale 60s", "b flow4 { dport = 80; } discard 70s")
	b.now = down.Add(time.Minute)
	if next := b.Expire(b.now); !next.IsZero() {
		t.Fatalf("the next look is at %v", next)
	}
	b.holds("b flow4 { dport = 80; } discard 70s")
}

func TestEndOfRIBTakesWhatWasNotAnnouncedAgain(t *testing.T) {
	b := newBook(t, 10)
	for _, n := range []byte{22, 53, 80} {
		b.must(b.announce(torA, port(n), discard...))
	}
	b.Down(torA, b.now)
	b.now = b.now.Add(5 * time.Second)
	b.must(b.announce(torA, port(22), discard...)) // as it was: it keeps its age
	b.must(b.announce(torA, port(53)))             // with another action
	b.EndOfRIB(torA, flowspec.IPv6)
	b.EndOfRIB(torB, flowspec.IPv4)
	b.holds("a flow4 { dport = 22; } discard 5s", "a flow4 { dport = 53; } accept 0s", "a flow4 { dport = 80; } discard 5s stale 5s")
	b.EndOfRIB(torA, flowspec.IPv4)
	b.holds("a flow4 { dport = 22; } discard 5s", "a flow4 { dport = 53; } accept 0s")
}

func TestTheLimitIsFirstComeFirstServed(t *testing.T) {
	b := newBook(t, 2)
	for _, n := range []byte{90, 80, 70, 60} {
		b.must(b.announce(torA, port(n)))
	}
	const over = ": 2 rules are accepted already (max_rules)"
	b.holds("a flow4 { dport = 60; } accept 0s"+over, "a flow4 { dport = 70; } accept 0s"+over,
		"a flow4 { dport = 80; } accept 0s", "a flow4 { dport = 90; } accept 0s")
	err := b.announce(torB, port(50))
	if err == nil || err.Error() != "flow4 { dport = 50; } of 198.18.1.1: 4 rules are known already, and no more are remembered" {
		t.Errorf("%v", err)
	}
	if _, news := b.Judge(b.rib); len(news) != 0 || b.Refusals() != 3 {
		t.Errorf("%d refusals are news, %d were counted; want none and 3", len(news), b.Refusals())
	}
	b.Withdraw(torA, flowspec.IPv4, port(90))
	b.holds("a flow4 { dport = 60; } accept 0s"+over, "a flow4 { dport = 70; } accept 0s", "a flow4 { dport = 80; } accept 0s")
}

func TestWhatIsRefusedSaysWhy(t *testing.T) {
	b := newBook(t, 10)
	b.SetPolicy(flowspec.Policy{Trust: flowspec.Trust{torA}, Max: 10, Keep: time.Minute})
	b.must(b.announce(torA, port(53), discard...))
	b.must(b.announce(torB, port(80), discard...))
	b.must(b.announce(torA, []byte{5, 0x91, 1}, discard...))
	b.must(b.announce(torA, port(22), 0x80, 0x06, 0, 0, 0x7f, 0xc0, 0, 0))
	b.holds("a flow4 { dport = 22; } accept 0s: flowspec: a traffic rate is not a number (0x7fc00000)",
		"a flow4 { dport = 53; } discard 0s",
		"b flow4 { dport = 80; } discard 0s: unfeasible: it has no destination prefix",
		"a flow4 { 059101 } discard 0s: flowspec: component 5 (dport) at octet 0: it ends within its values: 1 octets are left of 2")
	if b.Refusals() != 3 {
		t.Errorf("%d refusals, want 3", b.Refusals())
	}
}

func TestOneRuleOfTwoNeighborsCountsOnce(t *testing.T) {
	b := newBook(t, 1)
	b.must(b.announce(torB, port(53), discard...))
	b.must(b.announce(torA, port(53)))
	b.holds("b flow4 { dport = 53; } discard 0s", "a flow4 { dport = 53; } accept 0s: another neighbor announced the same rule before (unasked)")
	b.Withdraw(torB, flowspec.IPv4, port(53))
	b.holds("a flow4 { dport = 53; } accept 0s")
}

func TestARuleIsAsValidAsTheRoutesOfTheMoment(t *testing.T) {
	b := newBook(t, 10)
	b.SetPolicy(flowspec.Policy{Max: 10, Keep: time.Minute})
	to := octets(t, "01 20 cb 00 71 35")
	b.must(b.announce(torA, to, discard...))
	b.holds("a flow4 { dst 203.0.113.53/32; } discard 0s: unfeasible: no unicast route covers 203.0.113.53/32")
	if !b.Doubtful() {
		t.Error("nothing is doubtful")
	}
	b.rib = routes{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Originator: torA, FirstAS: 65000}}
	b.holds("a flow4 { dst 203.0.113.53/32; } discard 0s")
	b.SetPolicy(flowspec.Policy{Trust: flowspec.Trust{torA}, Max: 10, Keep: time.Minute})
	if b.Doubtful() {
		t.Error("a trusted neighbor's rule is doubtful")
	}
}

// A process takes the rules of the one before: they are stale, keep their ages and verdicts, and are withdrawn as any.
func TestRulesAreKeptForTheNextProcess(t *testing.T) {
	a := newBook(t, 10)
	a.SetPolicy(flowspec.Policy{Trust: flowspec.Trust{torB}, Max: 10, Keep: time.Minute})
	a.rib = routes{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Originator: torA, FirstAS: 65000}}
	to := octets(t, "01 20 cb 00 71 35")
	a.must(a.announce(torA, to, discard...))
	a.must(a.announce(torA, port(53), discard...))
	a.must(a.announce(torB, port(22), discard...))
	a.must(a.announce(torB, []byte{5, 0x91, 1}, discard...))
	a.Judge(a.rib)
	file, err := json.Marshal(a.Keep())
	a.must(err)

	b := newBook(t, 10)
	b.Table = flowspec.NewTable()
	var kept []flowspec.Kept
	b.must(json.Unmarshal(file, &kept))
	b.now = b.now.Add(10 * time.Second)
	b.Restore(kept, b.now)
	b.SetPolicy(flowspec.Policy{Trust: flowspec.Trust{torB}, Max: 10, Keep: time.Minute})
	const unfeasible = ": unfeasible: it has no destination prefix"
	const unread = ": flowspec: component 5 (dport) at octet 0: it ends within its values: 1 octets are left of 2"
	b.rib = routes{} // the routes come later
	b.holds("a flow4 { dst 203.0.113.53/32; } discard 10s stale 0s", "b flow4 { dport = 22; } discard 10s stale 0s",
		"a flow4 { dport = 53; } discard 10s stale 0s"+unfeasible, "b flow4 { 059101 } discard 10s stale 0s"+unread)
	b.must(b.announce(torA, to, discard...))
	b.holds("a flow4 { dst 203.0.113.53/32; } discard 10s: unfeasible: no unicast route covers 203.0.113.53/32", "b flow4 { dport = 22; } discard 10s stale 0s",
		"a flow4 { dport = 53; } discard 10s stale 0s"+unfeasible, "b flow4 { 059101 } discard 10s stale 0s"+unread)
	b.EndOfRIB(torB, flowspec.IPv4)
	b.now = b.now.Add(time.Minute)
	b.Expire(b.now)
	b.holds("a flow4 { dst 203.0.113.53/32; } discard 70s: unfeasible: no unicast route covers 203.0.113.53/32")
}

func TestBlackholesAreTheOwnersAndInsideOfWhatIsOurs(t *testing.T) {
	b := newBook(t, 10)
	policy := flowspec.Policy{Trust: flowspec.Trust{torA}, Max: 5, Keep: time.Minute, Blackholes: true, Within: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}
	b.SetPolicy(policy)
	ours, around, beside := octets(t, "01 20 cb 00 71 35"), octets(t, "01 17 cb 00 70"), octets(t, "01 20 c0 00 02 01")
	for _, to := range [][]byte{ours, around, beside} {
		b.must(b.announce(torA, to, discard...))
	}
	b.must(b.announce(torB, octets(t, "01 20 cb 00 71 36"), discard...))
	b.must(b.announce(torA, octets(t, "01 18 cb 00 71"), discard...))
	policy.Max = 1
	b.SetPolicy(policy)
	b.holds("a flow4 { dst 192.0.2.1/32; } discard 0s: unfeasible: 192.0.2.1/32 is inside of nothing that we announce (unasked)",
		"a flow4 { dst 203.0.113.53/32; } discard 0s",
		"b flow4 { dst 203.0.113.54/32; } discard 0s: unfeasible: its neighbor may not ask for blackholes (blackhole.accept_from) (unasked)",
		"a flow4 { dst 203.0.113.0/24; } discard 0s: 1 blackhole is accepted already (blackhole.max_prefixes)",
		"a flow4 { dst 203.0.112.0/23; } discard 0s: unfeasible: 203.0.112.0/23 is inside of nothing that we announce (unasked)")
	b.Lead(torA, 65001)
	if all, _ := b.Judge(b.rib); all[1].Refused != "unfeasible: its AS path does not begin with 65001, its neighbor's AS (enforce_first_as)" {
		t.Errorf("a path that begins with 65000: %q", all[1].Refused)
	}
	b.Lead(torA, 0)
	if b.Doubtful() {
		t.Error("a blackhole waits for routes")
	}
	policy.Trust = nil
	b.SetPolicy(policy)
	b.Down(torA, b.now)
	all, _ := b.Judge(b.rib)
	for _, r := range all {
		if r.Refused == "" {
			t.Errorf("%s holds, and nobody may ask", r.Name)
		}
	}
}
