package netns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// flowFile is torFile with filters and a blackhole that BIRD originates when they are enabled.
var flowFile = strings.NewReplacer("protocol device", `flow4 table ft4;
flow6 table ft6;
protocol static attack4 { disabled; flow4 { table ft4; };
  route flow4 { dst 203.0.113.10/32; proto = 6; dport = 80; } { bgp_ext_community.add((generic, 0x80060000, 0x0)); }; }
protocol static attack6 { disabled; flow6 { table ft6; };
  route flow6 { dst 2001:db8:100::10/128; next header = 6; dport = 80; } { bgp_ext_community.add((generic, 0x80060000, 0x0)); }; }
protocol static label6 { disabled; flow6 { table ft6; };
  route flow6 { dst 2001:db8:100::10/128; label 7; } { bgp_ext_community.add((generic, 0x80060000, 0x0)); }; }
protocol static sample4 { disabled; flow4 { table ft4; };
  route flow4 { dst 203.0.113.11/32; } { bgp_ext_community.add((generic, 0x80070000, 0x2)); }; }
protocol static scrub4 { disabled; flow4 { table ft4; };
  route flow4 { dst 203.0.113.10/32; } { bgp_ext_community.add((generic, 0x8008fde8, 0x64)); }; }
protocol static hole { disabled; ipv4; route 203.0.113.99/32 blackhole { bgp_community.add((65535, 666)); }; route 192.0.2.99/32 blackhole { bgp_community.add((65535, 666)); }; }
protocol device`, "  ipv4 { import all; export where source = RTS_STATIC; };", `  ipv4 { import all; export where source = RTS_STATIC; };
  flow4 { table ft4; import none; export all; }; flow6 { table ft6; import none; export all; };`).Replace(torFile)

// The rules as they are shown.
const (
	attack4 = "flow4 { dst 203.0.113.10/32; proto = 6; dport = 80; }"
	attack6 = "flow6 { dst 2001:db8:100::10/128; proto = 6; dport = 80; }"
)

// flowGateway makes the ToR's IPv4 session carry FlowSpec and blackholes.
func flowGateway(t *testing.T, s *site) string {
	return edited(t, gatewayFile, "{name: tor, address: 198.18.0.1,", "{name: tor, address: 198.18.0.1, families: [ipv4-unicast, ipv4-flowspec, ipv6-flowspec],",
		"  learn:\n", "  flowspec: {accept_from: [tor], max_age: 10m}\n  blackhole: {accept_from: [tor]}\n  learn:\n")
}

func newFlowGateway(t *testing.T) *site {
	t.Helper()
	s := newBareSite(t)
	s.write(flowGateway(t, s))
	s.bird = startBirdWith(t, s, flowFile)
	s.start()
	s.established()
	return s
}

// filters waits until there are these, each as its rule, its actions and what is said of it.
func (s *site) filters(want ...string) {
	s.t.Helper()
	eventually(s.t, func() error {
		var got []string
		for _, f := range show[api.Filters](s, "flowspec").Filters {
			line := f.Neighbor + " " + f.Rule + " " + f.Actions
			switch {
			case !f.Valid:
				line += " refused: " + f.Refused
			case f.Stale != nil:
				line += " stale"
			}
			got = append(got, line)
		}
		if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
			return fmt.Errorf("filters are\n%s\nwant\n%s", g, w)
		}
		return nil
	})
}

// tells fails unless the command succeeded and printed all of these.
func (s *site) tells(r said, words ...string) {
	s.t.Helper()
	for _, text := range words {
		if r.code != 0 || !strings.Contains(r.out, text) {
			s.t.Errorf("exit code %d, and it does not tell %q: %s%s", r.code, text, r.out, r.err)
		}
	}
}

// matched is how many packets a filter has met.
func (s *site) matched(rule string) uint64 {
	s.t.Helper()
	for _, f := range show[api.Filters](s, "flowspec").Filters {
		if f.Rule == rule {
			return f.Packets
		}
	}
	return 0
}

func TestAFilterOfBIRDDropsUntilItIsWithdrawnAndOutlivesTheDaemonAndItsSession(t *testing.T) {
	t.Parallel()
	s := newFlowGateway(t)
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	generation := s.status().XDPGeneration
	s.latency("attack4", netip.AddrPortFrom(lab.Web4[0], 80))
	s.bird.do("enable attack4")
	s.bird.do("enable attack6")
	s.bird.do("enable label6")
	const refused6 = "tor flow6 { dst 2001:db8:100::10/128; label = 7; } discard refused: XDP does not look at flow labels: label = 7"
	s.filters("tor "+attack4+" discard", "tor "+attack6+" discard", refused6)
	s.bird.do("disable label6")
	s.counts("xdp", "eth0", "flowspec-drop", func() { s.silent(s.Client, lab.Web4[0], 80) })
	s.counts("xdp", "eth0", "flowspec-drop", func() { s.silent(s.Client, lab.Web6[0], 80) })
	s.answers(s.Client, lab.Web4[1], 80, "web-2")
	if now := s.status().XDPGeneration; now != generation {
		t.Errorf("filters made another generation: %s, and it was %s", now, generation)
	}
	s.tells(s.sluice("explain", "--in", "eth0", "--packet", "tcp 198.51.100.7:40000 > 203.0.113.10:80"), "drop, flowspec-drop", "by "+attack4+" of neighbor tor: discard")
	s.tells(s.sluice("show", "flowspec"), "NEIGHBOR", attack4, "valid")
	metrics := s.must(s.Gateway.Namespace, "curl -s http://127.0.0.1:9750/metrics")
	for _, want := range []string{`sluice_flowspec_rules{kind="flowspec",neighbor="tor",state="valid"} 2`, `sluice_flowspec_packets_total{neighbor="tor",rule="` + attack4 + `"}`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}

	before := s.matched(attack4)
	s.kill()
	s.silent(s.Client, lab.Web4[0], 80)
	s.bird.do("disable edge") // so that what holds after the start was kept, and not sent again
	s.start()
	s.filters("tor "+attack4+" discard stale", "tor "+attack6+" discard stale")
	s.silent(s.Client, lab.Web6[0], 80)
	s.bird.do("enable edge")
	s.established()
	s.filters("tor "+attack4+" discard", "tor "+attack6+" discard")
	if now := s.matched(attack4); now <= before {
		t.Errorf("the counter was %d, and after a restart and two tries it is %d", before, now)
	}

	s.bird.do("disable edge")
	s.filters("tor "+attack4+" discard stale", "tor "+attack6+" discard stale")
	s.counts("xdp", "eth0", "flowspec-drop", func() { s.silent(s.Client, lab.Web6[0], 80) })
	s.tells(s.sluice("show", "flowspec"), "stale since")
	s.bird.do("disable attack4")
	s.bird.do("enable edge")
	s.established()
	s.filters("tor " + attack6 + " discard")
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	s.silent(s.Client, lab.Web6[0], 80)

	// Who is not trusted needs a route of its own, and the best route to what we serve is ours.
	s.edit("accept_from: [tor], max_age: 10m", "max_age: 10m")
	s.apply()
	s.filters("tor " + attack6 + " discard refused: unfeasible: the best route to 2001:db8:100::10/128, 2001:db8:100::10/128, is our own")
	s.answers(s.Client, lab.Web6[0], 80, "web-1")
}

// latency logs how long a filter of BIRD takes from the command to the first packet that it drops, and back.
func (s *site) latency(protocol string, server netip.AddrPort) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	conn, err := s.Client.Dial(ctx, "udp", server.String())
	if err != nil {
		s.t.Fatal(err)
	}
	conn.Close()
	for range 3 {
		begin := time.Now()
		s.bird.do("enable " + protocol)
		eventually(s.t, func() error {
			s.knock(server)
			if f := show[api.Filters](s, "flowspec").Filters; len(f) != 1 || f[0].Dropped == 0 {
				return fmt.Errorf("nothing is dropped: %+v", f)
			}
			return nil
		})
		there := time.Since(begin)
		begin = time.Now()
		s.bird.do("disable " + protocol)
		s.filters()
		s.t.Logf("from BIRD's command to the first dropped packet %s, from its withdrawal until it is gone %s", there, time.Since(begin))
	}
}

// knock sends a SYN and does not wait for an answer.
func (s *site) knock(server netip.AddrPort) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Millisecond)
	defer cancel()
	if conn, err := s.Client.Dial(ctx, "tcp", server.String()); err == nil {
		_ = conn.Close()
	}
}

// TestAFilterHoldsOnAnUplinkWithoutXDP: what judges there is tcx.
func TestAFilterHoldsOnAnUplinkWithoutXDP(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	s.write(edited(t, flowGateway(t, s), "    role: uplink\n", "    role: uplink\n    xdp: {mode: none}\n"))
	s.bird = startBirdWith(t, s, flowFile)
	s.start()
	s.established()
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	f := s.follow(true)
	for _, protocol := range []string{"attack4", "attack6", "hole"} {
		s.bird.do("enable " + protocol)
	}
	const inside = "tor blackhole 203.0.113.99/32 discard"
	s.filters("tor blackhole 192.0.2.99/32 discard refused: unfeasible: 192.0.2.99/32 is inside of nothing that we announce", inside,
		"tor "+attack4+" discard", "tor "+attack6+" discard")
	s.counts("tc", "eth0", "flowspec-drop", func() { s.silent(s.Client, lab.Web4[0], 80) })
	s.counts("tc", "eth0", "flowspec-drop", func() { s.silent(s.Client, lab.Web6[0], 80) })
	s.counts("tc", "eth0", "blackhole", func() { s.silent(s.Client, netip.MustParseAddr("203.0.113.99"), 80) })
	s.answers(s.Client, lab.Web4[1], 80, "web-2")
	if s.matched(attack4) == 0 || s.matched(attack6) == 0 {
		t.Errorf("the filters count nothing: %+v", show[api.Filters](s, "flowspec").Filters)
	}
	s.tells(s.sluice("explain", "--in", "eth0", "--packet", "tcp 198.51.100.7:40000 > 203.0.113.10:80"), "tcx-ingress", "drop, flowspec-drop",
		"by "+attack4+" of neighbor tor: discard")
	f.hears(t, "a packet that a filter dropped", func(e api.Event) bool {
		return e.Drop != nil && e.Drop.Hook == "tcx-ingress" && e.Drop.Reason == "flowspec-drop" && e.Drop.Filter == "tor: "+attack4
	})
	s.kill()
	s.silent(s.Client, lab.Web4[0], 80)
	s.start()
	s.established()
	s.bird.do("disable attack4")
	s.filters("tor blackhole 192.0.2.99/32 discard refused: unfeasible: 192.0.2.99/32 is inside of nothing that we announce", inside, "tor "+attack6+" discard")
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
}

func TestABlackholeOfBIRDDropsOneDestinationOfOursAndNoOther(t *testing.T) {
	t.Parallel()
	s := newFlowGateway(t)
	hole := netip.MustParseAddr("203.0.113.99")
	s.counts("xdp", "eth0", "default-drop", func() { s.silent(s.Client, hole, 80) })
	s.bird.do("enable hole")
	const valid = "tor blackhole 203.0.113.99/32 discard"
	s.filters("tor blackhole 192.0.2.99/32 discard refused: unfeasible: 192.0.2.99/32 is inside of nothing that we announce", valid)
	s.counts("xdp", "eth0", "blackhole", func() { s.silent(s.Client, hole, 80) })
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	s.tells(s.sluice("explain", "--in", "eth0", "--packet", "udp 198.51.100.7:40000 > 203.0.113.99:9"), "drop, blackhole", "by blackhole 203.0.113.99/32 of neighbor tor: discard")
	s.must(s.ToR, "ip route add 203.0.113.99/32 via 198.18.0.2") // the ToR's own route goes with the session
	s.bird.do("disable edge")
	eventually(t, func() error {
		for _, f := range show[api.Filters](s, "flowspec").Filters {
			if f.Valid && f.Stale != nil && f.Kind == api.FilterBlackhole {
				return nil
			}
		}
		return fmt.Errorf("no blackhole is stale: %+v", show[api.Filters](s, "flowspec").Filters)
	})
	s.counts("xdp", "eth0", "blackhole", func() { s.silent(s.Client, hole, 80) })
	s.bird.do("disable hole")
	s.bird.do("enable edge")
	s.established()
	s.filters()
	s.counts("xdp", "eth0", "default-drop", func() { s.silent(s.Client, hole, 80) })
}

func TestAFilterSamplesAndRedirectsWhereTheFileSaysWhereTo(t *testing.T) {
	t.Parallel()
	s := newFlowGateway(t)
	f := s.follow(false)
	s.bird.do("enable sample4")
	s.bird.do("enable scrub4")
	const sampled, redirected = "flow4 { dst 203.0.113.11/32; }", "flow4 { dst 203.0.113.10/32; }"
	s.filters("tor "+redirected+" redirect 65000:100 refused: no socket is configured for it (bgp.flowspec.redirect): redirect 65000:100", "tor "+sampled+" sample")
	// Valid is said before anybody takes what is sampled.
	eventually(t, func() error {
		s.answers(s.Client, lab.Web4[1], 80, "web-2")
		for _, e := range f.events() {
			if e.Log != nil && e.Log.Filter == "tor: "+sampled && e.Log.Verdict == "pass" && e.Log.Hook == "xdp" && e.Log.Destination == lab.Web4[1] && e.Log.Rule == "" {
				return nil
			}
		}
		return fmt.Errorf("the monitor did not tell of a sampled packet, but of %+v", f.events())
	})

	s.edit("max_age: 10m}", "max_age: 10m, redirect: [{target: \"65000:100\", socket: scrub}]}", "\nbgp:\n", "\nsockets: [{name: scrub}]\n\nbgp:\n")
	s.apply()
	s.filters("tor "+redirected+" redirect 65000:100", "tor "+sampled+" sample")
	f.tellsOf(t, redirected, "refused: no socket is configured for it (bgp.flowspec.redirect): redirect 65000:100", "added")
	s.tells(s.sluice("show", "flowspec"), "redirect 65000:100, to socket scrub")
	s.answers(s.Client, lab.Web4[0], 80, "web-1") // nobody has registered: the policies judge
	s.tells(s.sluice("explain", "--in", "eth0", "--packet", "tcp 198.51.100.7:40000 > 203.0.113.10:80"), "xdp on eth0: pass",
		"filter "+redirected+" of neighbor tor: redirect 65000:100, to socket scrub, but no program takes it there: it goes on")
	s.tells(s.sluice("explain", "--in", "eth0", "--packet", "tcp 198.51.100.7:40000 > 203.0.113.11:80"), "xdp on eth0: pass",
		"filter "+sampled+" of neighbor tor: sample\n")
	if s.matched(redirected) == 0 {
		t.Error("the filter that redirects has met nothing")
	}
	s.edit(", redirect: [{target: \"65000:100\", socket: scrub}]", "", "\nsockets: [{name: scrub}]\n\nbgp:\n", "\nbgp:\n")
	s.apply()
	f.tellsOf(t, redirected, "refused: no socket is configured for it (bgp.flowspec.redirect): redirect 65000:100", "added",
		"refused: no socket is configured for it (bgp.flowspec.redirect): redirect 65000:100")
}

func TestAFilterOfExaBGPLimitsARate(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	s.write(edited(t, flowGateway(t, s), "    - {name: tor-v6, address: \"2001:db8::1\", asn: 65000, max_prefixes: 1000, graceful_restart: {restart_time: 60s}}\n", ""))
	config := filepath.Join(s.Dir, "exabgp.conf")
	text := `neighbor 198.18.0.2 {
  router-id 198.18.0.1; local-address 198.18.0.1; local-as 65000; peer-as 65010; hold-time 9;
  family { ipv4 unicast; ipv4 flow; ipv6 flow; }
  flow { route limit { match { destination 203.0.113.10/32; protocol [ =tcp ]; destination-port [ =80 ]; } then { rate-limit 9600; } } }
}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	exa, err := s.ToR.Command("exabgp", "/usr/bin/env", "exabgp.daemon.user=root", "exabgp.daemon.drop=false", "exabgp.api.cli=false", "exabgp.api.ack=false",
		"exabgp.log.destination=stderr", "PYTHONDONTWRITEBYTECODE=1", "/usr/sbin/exabgp", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if said, _ := os.ReadFile(exa.Log); t.Failed() {
			t.Logf("ExaBGP said:\n%s", said[max(0, len(said)-3000):])
		}
	})
	s.start()
	const rule = "flow4 { dst 203.0.113.10/32; proto = 6; dport = 80; }"
	s.filters("tor " + rule + " rate 9600 bytes/s")
	// ExaBGP neither installs nor announces routes: both ways are made by hand.
	s.must(s.ToR, "ip route add 203.0.113.0/24 via 198.18.0.2")
	s.must(s.Gateway.Namespace, "ip route add default via 198.18.0.1")
	s.answers(s.Client, lab.Web4[0], 80, "web-1") // within the rate
	eventually(t, func() error {
		s.knock(netip.AddrPortFrom(lab.Web4[0], 80))
		if met := s.matched(rule); met == 0 {
			return fmt.Errorf("nothing met the rule")
		}
		return nil
	})
	if err := exa.Kill(); err != nil {
		t.Fatal(err)
	}
	s.filters("tor " + rule + " rate 9600 bytes/s stale")
}
