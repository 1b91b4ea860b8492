package netns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

func TestExplainSaysWhatHappensToThePacketAndCountsNothing(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	eventually(t, func() error { return s.learned(bothDefaults) })
	// A connection of web-1's own to the resolver, so that there is a flow to reply to.
	s.resolves(s.Workload(1), "www.example.net")
	line := func(text string) int { return 1 + strings.Count(s.file[:strings.Index(s.file, text)], "\n") }
	before := s.countersAtRest()
	for _, c := range []struct {
		in, packet string
		want       []string // hook verdict reason rule
		line       int
	}{
		{"eth0", "tcp 192.0.2.66:4000 > 203.0.113.10:80 flags=S", []string{"xdp drop rule-drop ingress/no-attackers"}, line("- {name: no-attackers")},
		{"eth0", "tcp [2001:db8:a::66]:4000 > [2001:db8:100::10]:80 flags=S", []string{"xdp drop rule-drop ingress/no-attackers"}, line("- {name: no-attackers")},
		{"eth0", "tcp 198.51.100.10:4000 > 203.0.113.10:22 flags=S", []string{"xdp drop default-drop "}, 0},
		{"eth0", "tcp 198.51.100.10:4000 > 203.0.113.10:80 flags=S",
			[]string{"xdp pass rule-accept ingress/web", "tcx-ingress redirect delivered workload/web-1/ingress/web"}, line("ingress: {default: drop, rules: [{name: web")},
		{"eth0", "tcp 198.51.100.10:4000 > 203.0.113.10:443 flags=S",
			[]string{"xdp pass rule-accept ingress/web", "tcx-ingress drop default-drop "}, 0},
		{"eth0", "tcp 198.18.0.1:4000 > 198.18.0.2:22 flags=S", []string{"xdp pass failsafe failsafe/ssh", "tcx-ingress pass local "}, line("- {name: ssh")},
		{"web-1", "tcp 203.0.113.10:4000 > 198.51.100.10:80 flags=S", []string{"tcx-ingress drop default-drop "}, 0},
		{"web-1", "udp 203.0.113.99:4000 > 198.51.100.53:53", []string{"tcx-ingress drop workload-spoofed "}, 0},
	} {
		r := s.explain(c.in, c.packet)
		var got []string
		for _, h := range r.Hooks {
			got = append(got, fmt.Sprintf("%s %s %s %s", h.Hook, h.Verdict, h.Reason, h.Rule))
		}
		if strings.Join(got, ", ") != strings.Join(c.want, ", ") {
			t.Errorf("%s on %s:\n%q, want\n%q", c.packet, c.in, got, c.want)
			continue
		}
		acted := api.HookAnswer{}
		for _, h := range r.Hooks {
			if h.Rule != "" || h.Verdict == "drop" {
				acted = h
			}
		}
		if acted.Line != c.line || c.line != 0 && acted.File != s.Gateway.File {
			t.Errorf("%s: %s at %s:%d, want line %d", c.packet, acted.Rule, acted.File, acted.Line, c.line)
		}
	}
	if after := s.counters(); after != before {
		t.Errorf("explain counted. Before:\n%s\nafter:\n%s", before, after)
	}
	s.explainsReplies()
}

// countersAtRest are the counters once what was sent before has been counted.
func (s *site) countersAtRest() (now string) {
	s.t.Helper()
	eventually(s.t, func() error {
		before := s.counters()
		time.Sleep(500 * time.Millisecond)
		if now = s.counters(); now != before {
			return fmt.Errorf("counters move. Before:\n%s\nafter:\n%s", before, now)
		}
		return nil
	})
	return now
}

// counters are those that explain could touch by mistake: link control and BGP go on meanwhile.
func (s *site) counters() string {
	s.t.Helper()
	var lines []string
	for _, r := range show[[]api.Reason](s, "reasons") {
		switch r.Reason {
		case "link-control", "system", "established", "local", "multicast", "judged":
		default:
			lines = append(lines, fmt.Sprintf("%s %s %s %d", r.Hook, r.Interface, r.Reason, r.Packets))
		}
	}
	for _, p := range show[[]api.Policy](s, "policy") {
		if p.DefaultHits != nil {
			lines = append(lines, fmt.Sprintf("%s %d %d", p.Name, p.DefaultHits.Packets, p.DefaultHits.Bytes))
		}
		for _, r := range p.Rules {
			if p.Name != "system" {
				lines = append(lines, fmt.Sprintf("%s/%s %d %d", p.Name, r.Name, r.Packets, r.Bytes))
			}
		}
	}
	return strings.Join(lines, "\n")
}

func (s *site) explain(in, packet string) api.Explanation {
	s.t.Helper()
	e, err := s.api.Explain(s.t.Context(), api.ExplainRequest{Interface: in, Packet: packet})
	if err != nil {
		s.t.Fatalf("explain %s: %v", packet, err)
	}
	if e.Bug != "" {
		s.t.Errorf("explain %s: %s", packet, e.Bug)
	}
	return e
}

// explainsReplies holds a real flow open and asks for a packet of each direction.
func (s *site) explainsReplies() {
	s.t.Helper()
	var conn net.PacketConn
	err := s.Workload(1).Do(func() (err error) {
		conn, err = net.ListenPacket("udp", "203.0.113.10:5353")
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	before := s.explain("eth0", "udp 198.51.100.53:53 > 203.0.113.10:5353")
	if h := before.Hooks[0]; h.Verdict != "drop" || h.Reason != "default-drop" {
		s.t.Errorf("before there is a flow: %+v", h)
	}
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(lab.Resolver4, 53))
	if _, err := conn.WriteTo([]byte("no query"), to); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, func() error {
		h := s.explain("eth0", "udp 198.51.100.53:53 > 203.0.113.10:5353").Hooks
		if h[0].Reason != "established" || len(h) != 2 || h[1].RedirectTo == "" {
			return fmt.Errorf("a reply: %+v", h)
		}
		return nil
	})
	r := s.sluice("explain", "--in", "eth0", "--packet", "tcp 192.0.2.66:4000 > 203.0.113.10:80 flags=S")
	for _, want := range []string{"xdp on eth0: drop, rule-drop", "by rule ingress/no-attackers (" + s.Gateway.File + ":"} {
		if !strings.Contains(r.out, want) {
			s.t.Errorf("explain does not say %q:\n%s%s", want, r.out, r.err)
		}
	}
}

func TestTheMetricsAreWhatShowPrints(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	s.silent(s.Attacker, lab.Web4[0], 80)
	s.silent(s.Client, lab.Web4[0], 22)
	eventually(t, func() error { // no packet may pass between the two looks, so it may take some
		reasons, policies := show[[]api.Reason](s, "reasons"), show[[]api.Policy](s, "policy")
		metrics, err := s.scrape()
		if err != nil {
			return err
		}
		var errs []error
		want := func(name string, v uint64) {
			if got, ok := metrics[name]; !ok || got != float64(v) {
				errs = append(errs, fmt.Errorf("%s is %v, show has %d", name, got, v))
			}
		}
		for _, r := range reasons {
			labels := fmt.Sprintf(`{fate=%q,hook=%q,interface=%q,reason=%q}`, r.Fate, r.Hook, r.Interface, r.Reason)
			want("sluice_packets_total"+labels, r.Packets)
			want("sluice_bytes_total"+labels, r.Bytes)
		}
		for _, p := range policies {
			for _, r := range p.Rules {
				labels := fmt.Sprintf(`{action=%q,policy=%q,rule=%q}`, r.Action, p.Name, r.Name)
				want("sluice_rule_packets_total"+labels, r.Packets)
				want("sluice_rule_bytes_total"+labels, r.Bytes)
			}
		}
		want("sluice_revision", 1)
		want("sluice_up", 1)
		want(`sluice_bgp_session_up{neighbor="tor"}`, 1)
		want(`sluice_bgp_session_up{neighbor="tor-v6"}`, 1)
		for direction, n := range map[string]uint64{"received": 1, "accepted": 1, "advertised": 3} {
			want(fmt.Sprintf(`sluice_bgp_prefixes{direction=%q,family="ipv4-unicast",neighbor="tor"}`, direction), n)
			want(fmt.Sprintf(`sluice_bgp_prefixes{direction=%q,family="ipv6-unicast",neighbor="tor-v6"}`, direction), n)
		}
		want(`sluice_condition{reason="Verified",type="InSync"}`, 1)
		return errors.Join(errs...)
	})
}

// scrape reads the metrics in the gateway, where nobody outside can.
func (s *site) scrape() (map[string]float64, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: s.Gateway.Dial}
	response, err := (&http.Client{Transport: transport}).Get("http://127.0.0.1:9750/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	metrics := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, found := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); found && err == nil && !strings.HasPrefix(name, "#") {
			metrics[name] = v
		}
	}
	return metrics, nil
}
