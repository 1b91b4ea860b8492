package netns

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

const lanPolicies = `  - name: eth1
    role: downstream
    addresses: [198.18.1.2/30]
    ingress:
      default: drop
      rules:
        - {name: shop, protocol: tcp, ports: [8080], action: accept}
    egress:
      default: drop
      rules:
        - {name: dns, to: [resolvers], protocol: udp, ports: [53], action: accept}
        - {name: box, to: [self], protocol: tcp, ports: [8443], action: accept}
        - {name: web, to: [web-1], protocol: tcp, ports: [80, 443], action: accept}
`

// lan is a site whose attacker lives in a LAN behind the gateway, at its eth1.
type lan struct {
	*site
	host netip.Addr
}

func newLAN(t *testing.T) lan {
	t.Helper()
	s := lan{newSite(t), netip.MustParseAddr("198.18.1.1")}
	s.uplink2(1)
	s.must(s.Attacker, "ip route replace default via 198.18.1.2")
	s.must(s.ToR, "ip route add 198.18.1.0/30 via 198.18.0.2")
	s.edit(secondUplink, lanPolicies+secondUplink,
		"      - {name: no-attackers,", "      - {name: lan, to: [198.18.1.0/30], protocol: tcp, action: accept}\n      - {name: no-attackers,",
		"\nbgp:\n", "\nforward: [{from: workload, to: downstream}, {from: downstream, to: workload}]\n\nbgp:\n")
	return s
}

func (s lan) port(n uint16) netip.AddrPort { return netip.AddrPortFrom(s.host, n) }

// box is the gateway's own address in the LAN.
func (s lan) box(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("198.18.1.2"), port)
}

func TestALANIsJudgedByItsOwnPolicies(t *testing.T) {
	t.Parallel()
	s := newLAN(t)
	s.start()
	eventually(t, func() error { return s.learned(bothDefaults) })
	for _, port := range []uint16{8080, 8081} {
		s.echo(s.Attacker, s.port(port))
		s.echo(s.Client, netip.AddrPortFrom(lab.Client4, port))
	}
	s.echo(s.Gateway.Namespace, s.box(8443))
	s.echo(s.Gateway.Namespace, s.box(8444))
	reached := func(from *lab.Namespace, at netip.AddrPort) {
		t.Helper()
		if err := s.echoes(from, at); err != nil {
			t.Errorf("%s does not reach %s: %v", from.Name, at, err)
		}
	}

	// What its hosts send: outside, to the box, to a workload.
	if found, err := s.Attacker.Resolve(t.Context(), lab.Resolver4, "www.example.net"); err != nil || len(found) != 1 {
		t.Errorf("the LAN resolves %v: %v", found, err)
	}
	s.counts("tc", "eth1", "default-drop", func() { s.silent(s.Attacker, lab.Client4, 8080) })
	reached(s.Attacker, s.box(8443))
	s.silent(s.Attacker, s.box(8444).Addr(), 8444)
	s.answers(s.Attacker, lab.Web4[0], 80, "web-1")
	s.silent(s.Attacker, lab.Web4[1], 80)

	// What goes there: from outside and from a workload, whose own policy has to permit it as well.
	reached(s.Client, s.port(8080))
	s.counts("tc", "eth1", "default-drop", func() { s.silent(s.Client, s.host, 8081) })
	s.silent(s.Workload(1), s.host, 8080)
	s.write(strings.ReplaceAll(s.file, "egress: {default: drop, rules: [{name: dns", "egress: {default: accept, rules: [{name: dns"))
	s.apply()
	reached(s.Workload(1), s.port(8080))
	s.counts("tc", "web-1", "default-drop", func() { s.silent(s.Workload(1), s.host, 8081) })

	// Every way to look at it knows them.
	if r := s.limitOf("interface/eth1/egress", "dns"); r.Packets == 0 {
		t.Errorf("the rule for names counted %+v", r)
	}
	e := s.explain("eth1", "udp 198.18.1.1:4000 > 198.51.100.53:53").Hooks
	if h := e[len(e)-2]; h.Hook != "tcx-ingress" || h.Policy != "interface/eth1/egress" || h.Rule != "interface/eth1/egress/dns" || h.Line == 0 {
		t.Errorf("explain says %+v", h)
	}
	if h := e[len(e)-1]; h.Hook != "tcx-egress" || h.Interface != "eth0" || h.Verdict != "pass" {
		t.Errorf("explain says of the uplink %+v", h)
	}
	for _, want := range []string{"interface/eth1/ingress", "interface/eth1/egress", "shop"} {
		if r := s.sluice("show", "policy", "interface/eth1"); !strings.Contains(r.out, want) {
			t.Errorf("show policy does not tell of %q:\n%s%s", want, r.out, r.err)
		}
	}
	metrics, err := s.scrape()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for name := range metrics {
		found = found || strings.Contains(name, "interface/eth1/ingress")
	}
	if !found {
		t.Error("no metric is of interface/eth1/ingress")
	}
}

// TestARevokedRuleOfALANStopsAConnectionAtOnce: and the rule's return lets it go on.
func TestARevokedRuleOfALANStopsAConnectionAtOnce(t *testing.T) {
	t.Parallel()
	s := newLAN(t)
	s.start()
	eventually(t, func() error { return s.learned(bothDefaults) })
	s.echo(s.Attacker, s.port(8080))
	conn, err := s.dial(s.Client, s.port(8080))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := answered(conn, "one", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	const shop = "        - {name: shop, protocol: tcp, ports: [8080], action: accept}\n"
	s.edit("      rules:\n"+shop, "      rules: []\n")
	s.apply()
	if err := answered(conn, "two", 700*time.Millisecond); err == nil {
		t.Error("the connection goes on without its rule")
	}
	s.edit("      rules: []\n    egress:", "      rules:\n"+shop+"    egress:")
	s.apply()
	if err := comesBack(conn, "two", patience); err != nil {
		t.Errorf("after the rule came back: %v", err)
	}
}

func answered(conn net.Conn, text string, wait time.Duration) error {
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	return comesBack(conn, text, wait)
}

func comesBack(conn net.Conn, text string, wait time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("heard %q, want %q", got, text)
	}
	return nil
}

// TestFlowsThroughTheKernelSayWhoOpenedThemByWhichRule: of a LAN and of a workload with path: stack, which are tracked where they leave.
func TestFlowsThroughTheKernelSayWhoOpenedThemByWhichRule(t *testing.T) {
	t.Parallel()
	s := newLAN(t)
	s.edit("    interface: web-1\n", "    interface: web-1\n    path: stack\n")
	s.start()
	eventually(t, func() error { return s.learned(bothDefaults) })
	client := s.Gateway.API()
	defer client.Close()
	for _, c := range []struct {
		from                *lab.Namespace
		address             netip.Addr
		workload, lan, rule string
	}{
		{s.Attacker, s.host, "", "eth1", "interface/eth1/egress/dns"},
		{s.Workload(1), lab.Web4[0], "web-1", "", "workload/web-1/egress/dns"},
	} {
		for range 2 { // a flow that is known keeps it
			if found, err := c.from.Resolve(t.Context(), lab.Resolver4, "www.example.net"); err != nil || len(found) != 1 {
				t.Fatalf("%s resolves %v: %v", c.from.Name, found, err)
			}
		}
		list, err := client.Flows(t.Context(), api.FlowsRequest{FlowFilter: api.FlowFilter{Address: c.address.String(), Port: 53, Rule: c.rule}})
		if err != nil || list.Total == 0 {
			t.Fatalf("by the rule %s: %+v, %v", c.rule, list, err)
		}
		if f := list.Flows[0]; f.Workload != c.workload || f.LAN != c.lan || f.Origin != "inside" || !slices.Equal(f.Rules, []string{c.rule}) {
			t.Errorf("%s: %+v", c.from.Name, f)
		}
	}
}
