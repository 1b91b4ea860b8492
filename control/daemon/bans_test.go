package daemon

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
	"sluice/control/ban"
	"sluice/control/config"
)

func TestAShownBanHasWhatHeldBefore(t *testing.T) {
	until := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		before *ban.Former
		want   *api.FormerBan
	}{
		{nil, nil},
		{&ban.Former{Why: "w", By: "ann"}, &api.FormerBan{Why: "w", By: "ann"}},
		{&ban.Former{Until: until}, &api.FormerBan{Until: &until}},
	} {
		shown := shownBans([]ban.Ban{{Target: netip.MustParsePrefix("192.0.2.7/32"), Before: c.before}})
		if diff := cmp.Diff(c.want, shown[0].Before); diff != "" {
			t.Error(diff)
		}
	}
}

func TestBansThatAreLikelyMistakesAreRefused(t *testing.T) {
	guarded := []guard{
		{netip.MustParseAddr("198.18.0.2"), "an address of eth0", true},
		{netip.MustParseAddr("fe80::2"), "an address of eth0", true},
		{netip.MustParseAddr("198.18.0.1"), "BGP neighbor tor", false},
		{netip.MustParseAddr("fe80::1%eth0"), "the next hop of ::/0", false},
	}
	for _, c := range []struct{ target, problem, forced string }{
		{"192.0.2.7", "", ""},
		{"2001:db8::/32", "", ""},
		{"198.18.0.2", "198.18.0.2 is an address of eth0: the box does not ban itself", "198.18.0.2 is an address of eth0: the box does not ban itself"},
		{"198.18.0.1", "198.18.0.1 covers 198.18.0.1, BGP neighbor tor: say --force if it is meant", ""},
		{"198.18.0.0/30", "198.18.0.0/30 covers 198.18.0.2, an address of eth0: say --force if it is meant", ""},
		{"fe80::1", "fe80::1 covers fe80::1%eth0, the next hop of ::/0: say --force if it is meant", ""},
		{"128.0.0.0/1", "128.0.0.0/1 is very wide: say --force if it is meant", ""},
	} {
		for _, force := range []bool{false, true} {
			want := c.problem
			if force {
				want = c.forced
			}
			err := judgeTargets([]netip.Prefix{target(t, c.target)}, guarded, force)
			if got := errorText(err); got != want {
				t.Errorf("%s, forced %v: %q, want %q", c.target, force, got, want)
			}
		}
	}
}

func target(t *testing.T, text string) netip.Prefix {
	t.Helper()
	list, err := parseTargets([]string{text})
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestABadRequestBansNobody: each is refused before anything is asked of the machine.
func TestWhatAFileDependsOnIsGuardedWithOrWithoutASpeaker(t *testing.T) {
	address := netip.MustParseAddr
	cfg := &config.Config{Routes: []config.Route{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Via: []netip.Addr{address("198.18.0.1")}}}}
	want := []guard{{addr: address("198.18.0.1"), what: "the next hop of 0.0.0.0/0"}}
	if got := dependedOn(cfg); !slices.Equal(got, want) {
		t.Errorf("without bgp: %v, want %v", got, want)
	}
	cfg.BGP = &config.BGP{Neighbors: []config.Neighbor{{Name: "tor", Address: address("198.18.0.5")}}}
	want = append([]guard{{addr: address("198.18.0.5"), what: "BGP neighbor tor"}}, want...)
	if got := dependedOn(cfg); !slices.Equal(got, want) {
		t.Errorf("with bgp: %v, want %v", got, want)
	}
}

func TestABadRequestBansNobody(t *testing.T) {
	for _, c := range []struct {
		request api.BanRequest
		problem string
	}{
		{api.BanRequest{}, "no target"},
		{api.BanRequest{Targets: []string{"192.0.2.7", "nobody", "0.0.0.0/0"}}, "\"nobody\": want an address or a prefix, as 192.0.2.7 or 2001:db8::/64\n\"0.0.0.0/0\": that is everyone"},
		{api.BanRequest{Targets: []string{"192.0.2.7"}, ForSeconds: -1}, "at most 365 days"},
		{api.BanRequest{Targets: []string{"192.0.2.7"}, ForSeconds: 365*86400 + 1}, "at most 365 days"},
		{api.BanRequest{Targets: []string{"192.0.2.7"}, Why: "two\nlines"}, "in one line"},
		{api.BanRequest{Targets: []string{"192.0.2.7"}, Why: strings.Repeat("x", 201)}, "at most 200 bytes"},
	} {
		if _, err := (&Daemon{}).Ban(context.Background(), c.request); err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%+v: %v, want %q", c.request, err, c.problem)
		}
	}
	for _, r := range []api.UnbanRequest{{}, {Targets: []string{"192.0.2.7"}, All: true}, {Targets: []string{"nobody"}}} {
		if _, err := (&Daemon{}).Unban(context.Background(), r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}

func TestLinksAreAskedOnlyWhereATargetMayCoverTheirAddresses(t *testing.T) {
	self := []netip.Addr{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("2001:db8::2")}
	for text, want := range map[string]bool{
		"192.0.2.7": false, "198.18.0.1": false, "198.18.0.2": true, "198.18.0.0/15": true, "2001:db8::/32": true, "2001:db8:1::/48": false,
		"fe80::1": true, "169.254.9.9": true,
	} {
		if got := coversOne([]netip.Prefix{target(t, "203.0.113.0/24"), target(t, text)}, self); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestLearnedNextHopsAreListedOnceForABurst(t *testing.T) {
	var c hopCache
	listed := 0
	for range 100 {
		if got := c.get(func() []guard { listed++; return []guard{{what: "x"}} }); len(got) != 1 {
			t.Fatalf("got %v", got)
		}
	}
	if listed != 1 {
		t.Errorf("listed %d times", listed)
	}
	c.at = c.at.Add(-2 * hopsAge)
	c.get(func() []guard { listed++; return nil })
	if listed != 2 {
		t.Errorf("listed %d times, want it again after a while", listed)
	}
}
