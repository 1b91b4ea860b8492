package netns

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/xdp/pin"
)

// allBans are more than are shown where nobody says how many.
func (s *site) allBans() []api.Ban {
	s.t.Helper()
	if shown := show[api.Bans](s, "bans"); len(shown.Bans) != min(shown.Total, api.DefaultBans) {
		s.t.Errorf("%d bans of %d are shown", len(shown.Bans), shown.Total)
	}
	all, err := s.api.Bans(s.t.Context(), api.BansRequest{Limit: 1 << 20})
	if err != nil {
		s.t.Fatal(err)
	}
	return all.Bans
}

// bans are targets and reasons as show bans lists them.
func (s *site) bans() string {
	s.t.Helper()
	var out []string
	for _, b := range s.allBans() {
		out = append(out, b.Target+" "+b.Why)
	}
	return strings.Join(out, "\n")
}

func (s *site) ban(r api.BanRequest) time.Duration {
	s.t.Helper()
	begin := time.Now()
	if _, err := s.api.Ban(s.t.Context(), r); err != nil {
		s.t.Fatal(err)
	}
	return time.Since(begin)
}

func (s *site) unban(targets ...string) {
	s.t.Helper()
	if _, err := s.api.Unban(s.t.Context(), api.UnbanRequest{Targets: targets}); err != nil {
		s.t.Fatal(err)
	}
}

func TestABanHoldsFromTheNextPacketOnAndBelowManagement(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	before := s.status()
	for _, family := range []struct{ target, prefix string }{
		// The kernel takes the last of the client's two IPv6 addresses for the source.
		{lab.Client4.String(), "198.51.100.0/24"}, {lab.Resolver6.String(), "2001:db8:c::/64"},
	} {
		server := lab.Web4[0]
		if lab.Resolver6.String() == family.target {
			server = lab.Web6[0]
		}
		for _, target := range []string{family.target, family.prefix} {
			s.answers(s.Client, server, 80, "web-1")
			took := s.ban(api.BanRequest{Targets: []string{target}, ForSeconds: 600, Why: "a test", By: "ann"})
			t.Logf("the ban of %s held after %s", target, took)
			s.counts("xdp", "eth0", "banned", func() { s.silent(s.Client, server, 80) })
			s.unban(target)
		}
		s.answers(s.Client, server, 80, "web-1")
	}
	s.establishedIsBanned()

	// The ToR is a neighbor, a next hop, and where management comes from.
	refusal := s.sluice("ban", lab.ToRAddress4.String())
	if refusal.code != 1 || !strings.Contains(refusal.err, "BGP neighbor tor: say --force if it is meant") {
		t.Errorf("a ban of the neighbor: %+v", refusal)
	}
	if r := s.sluice("ban", lab.ToRAddress4.String(), "--force", "--why", "a slip"); r.code != 0 || r.out != "198.18.0.1 is banned until it is lifted\n" {
		t.Errorf("a forced ban: %+v", r)
	}
	if _, err := s.ToR.Dial(t.Context(), "tcp", "198.18.0.2:22"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("management from a banned address: %v, want the box to refuse the connection itself", err)
	}
	why := s.sluice("explain", "--in", "eth0", "--packet", "tcp 198.18.0.1:40000 > 203.0.113.10:80")
	if why.code != 0 || !strings.Contains(why.out, "drop, banned") || !strings.Contains(why.out, "by the ban of 198.18.0.1 until it is lifted") ||
		!strings.Contains(why.out, ": a slip") {
		t.Errorf("explain: %+v", why)
	}

	// No revision, no generation and no apply has to do with it.
	s.edit("node: {name: e2e-gateway}", "node: {name: e2e-gateway-2}")
	s.apply()
	if got := s.bans(); got != "198.18.0.1 a slip" {
		t.Errorf("after an apply the bans are %q", got)
	}
	after := s.status()
	if after.XDPGeneration != before.XDPGeneration || after.Established != after.Neighbors {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
	if r := s.sluice("unban", "--all"); r.code != 0 || r.out != "198.18.0.1 is not banned any more\n" {
		t.Errorf("unban --all: %+v", r)
	}
	if r := s.sluice("unban", "198.18.0.1"); r.code != 1 || !strings.Contains(r.err, "198.18.0.1 is not banned") {
		t.Errorf("unban of what is not banned: %+v", r)
	}
	if r := s.sluice("ban", "198.18.0.2", "--force"); r.code != 1 || !strings.Contains(r.err, "the box does not ban itself") {
		t.Errorf("a ban of the box: %+v", r)
	}
}

// establishedIsBanned bans the client in the middle of a connection.
func (s *site) establishedIsBanned() {
	s.t.Helper()
	conn, err := s.Client.Dial(s.t.Context(), "tcp", lab.Web4[0].String()+":80")
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	s.ban(api.BanRequest{Targets: []string{lab.Client4.String()}})
	defer s.unban(lab.Client4.String())
	s.counts("xdp", "eth0", "banned", func() {
		if _, err := fmt.Fprint(conn, "GET /x HTTP/1.0\r\n\r\n"); err != nil {
			s.t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			s.t.Errorf("an established connection of a banned client was answered (%d bytes)", n)
		}
	})
}

func TestBansOutliveKillNineAndARebootAndEndByThemselves(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.ban(api.BanRequest{Targets: []string{lab.Client4.String()}, Why: "the client"})
	// A burst as a script makes it, one by one.
	begin := time.Now()
	var burst []string
	for i := range 1000 {
		burst = append(burst, fmt.Sprintf("10.66.%d.%d", i/200, 1+i%200))
		s.ban(api.BanRequest{Targets: burst[i:], ForSeconds: 3600, Why: "burst"})
	}
	t.Logf("1000 bans, one by one: %s", time.Since(begin))
	want := append(slices.Clone(burst), lab.Client4.String())
	s.kill()
	s.silent(s.Client, lab.Web4[0], 80)
	s.start()
	s.silent(s.Client, lab.Web4[0], 80)
	s.holds(want)

	// A reboot leaves the file alone.
	s.terminate()
	if err := pin.At(s.Gateway.BPFDir).RemoveAll(); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.established()
	s.silent(s.Client, lab.Web4[0], 80)
	s.holds(want)
	if got := s.bans(); !strings.Contains(got, lab.Client4.String()+" the client") {
		t.Error("the reason did not come through the reboot")
	}

	// An end needs no daemon.
	s.ban(api.BanRequest{Targets: []string{lab.Client4.String()}, ForSeconds: 8})
	s.kill()
	s.silent(s.Client, lab.Web4[0], 80)
	eventually(t, func() error { return s.get(s.Client, lab.Web4[0], 80, "web-1") })
	s.start()
	s.holds(burst)
}

// holds compares the banned targets, their ends and that none has lost its reason.
func (s *site) holds(want []string) {
	s.t.Helper()
	var got []string
	for _, b := range s.allBans() {
		got = append(got, b.Target)
		if b.Why == "" || strings.Contains(b.Why, "was killed") {
			s.t.Errorf("%s has lost its reason: %q", b.Target, b.Why)
		}
		if strings.HasPrefix(b.Target, "10.66.") && (b.Until == nil || b.RemainingSeconds > 3600 || b.RemainingSeconds < 3000) {
			s.t.Fatalf("%+v does not end when it should", b)
		}
	}
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		s.t.Fatalf("%d bans, want %d", len(got), len(want))
	}
}
