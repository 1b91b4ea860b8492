package daemon

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

const site = `
management:
  accept:
    - {name: ssh, protocol: tcp, ports: [22]}
    - {protocol: icmp}
interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]
policy:
  ingress:
    rules:
      - {name: no-bogons, from: [192.0.2.0/24], action: drop}
      - {name: web, protocol: tcp, ports: [443], action: accept}
  egress:
    rules:
      - {name: web, action: accept}
workloads:
  - name: w
    interface: w
    addresses: [10.0.1.1]
    ingress: {rules: [{name: web, action: accept}]}
    egress:
      rules:
        - {name: web, action: accept}
`

func parsed(t *testing.T, yaml string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(config.Source{Name: "edge.yaml", Bytes: []byte(yaml)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestRulePlaces(t *testing.T) {
	places := compile.RulePlaces(parsed(t, site))
	for _, c := range []struct {
		policy, rule string
		line         int
	}{
		{"failsafe", "ssh", 4}, {"failsafe", "management-2", 5}, {"ingress", "no-bogons", 10}, {"ingress", "web", 11}, {"egress", "web", 14},
		{"workload/w/ingress", "web", 19}, {"workload/w/egress", "web", 22},
		{"system", "bgp-tor-a-in", 0}, {"ingress", "gone", 0}, {"workload/x/egress", "web", 0}, {"", "", 0},
	} {
		got := places[c.policy+"/"+c.rule]
		if got.Line != c.line || (c.line > 0) != (got.File == "edge.yaml") {
			t.Errorf("%s/%s stands at %v, want line %d", c.policy, c.rule, got, c.line)
		}
	}
}

// TestDecided: what an answer says of the policy, for what the programs may say of a packet that web accepts.
func TestDecided(t *testing.T) {
	ingress := classify.Policy{Name: "ingress", Default: classify.Drop, Rules: []classify.Rule{
		{ID: 7, Name: "no-bogons", From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Protocol: classify.AnyProtocol, Action: classify.Drop},
		{ID: 8, Name: "web", Protocol: 6, Ports: []classify.PortRange{{First: 443, Last: 443}}, Action: classify.Accept},
		{ID: 9, Name: "dns", Protocol: 17, Action: classify.Limit},
	}}
	failsafe := classify.Policy{Name: "failsafe", Default: classify.Continue}
	policies := []classify.Policy{failsafe, ingress}
	web := classify.Packet{Src: netip.MustParseAddr("198.51.100.1"), Dst: netip.MustParseAddr("198.18.0.2"), Protocol: 6,
		SrcPort: 1234, DstPort: 443, HasPorts: true, TTL: 64}
	other := web
	other.DstPort = 80
	dns := web
	dns.Protocol = 17
	passedBogons := api.PassedOver{Rule: "ingress/no-bogons", Line: 10, Why: "from does not contain 198.51.100.1"}
	passedWeb := api.PassedOver{Rule: "ingress/web", Line: 11, Why: "port 80 is not in 443"}
	passedDNS := api.PassedOver{Rule: "ingress/dns", Why: "protocol is udp, not tcp"}
	dnsAnswer := api.HookAnswer{Policy: "ingress", Rule: "ingress/dns", PassedOver: []api.PassedOver{passedBogons,
		{Rule: "ingress/web", Line: 11, Why: "protocol is tcp, not udp"}}}
	for _, c := range []struct {
		name   string
		seen   classify.Packet
		reason abi.Reason
		rule   uint32
		index  int
		want   api.HookAnswer
		bug    string
	}{
		{"a rule", web, abi.ReasonRuleAccept, 8, 1,
			api.HookAnswer{Policy: "ingress", Rule: "ingress/web", File: "edge.yaml", Line: 11, PassedOver: []api.PassedOver{passedBogons}}, ""},
		{"a rule, and then a redirect", web, abi.ReasonDelivered, 8, 1,
			api.HookAnswer{Policy: "ingress", Rule: "ingress/web", File: "edge.yaml", Line: 11, PassedOver: []api.PassedOver{passedBogons}}, ""},
		{"within a limit", dns, abi.ReasonLimitAccept, 9, 1, dnsAnswer, ""},
		{"beyond it: the model knows the rule, and no bucket", dns, abi.ReasonLimitDrop, 9, 1, dnsAnswer, ""},
		{"the default", other, abi.ReasonDefaultDrop, 0, 1,
			api.HookAnswer{Policy: "ingress", PassedOver: []api.PassedOver{passedBogons, passedWeb, passedDNS}}, ""},
		{"a tracked flow, where the default would drop", other, abi.ReasonEstablished, 0, 1, api.HookAnswer{}, ""},
		{"a drop after a rule accepted", web, abi.ReasonForwardDenied, 8, 1, api.HookAnswer{}, ""},
		{"no policy at all", web, abi.ReasonL4Truncated, 0, -1, api.HookAnswer{}, ""},
		{"a policy that continues", web, abi.ReasonLocal, 0, 0, api.HookAnswer{}, ""},
		{"a policy that this revision does not have", web, abi.ReasonRuleAccept, 8, 2, api.HookAnswer{}, ""},
		{"another rule than the model's", web, abi.ReasonRuleDrop, 7, 1,
			api.HookAnswer{Policy: "ingress", Rule: "ingress/no-bogons", File: "edge.yaml", Line: 10, PassedOver: []api.PassedOver{passedBogons}},
			"policy ingress: the live program says rule-drop by rule 7, the reference model rule 8"},
		{"no rule where the model has one", web, abi.ReasonDefaultDrop, 0, 1,
			api.HookAnswer{Policy: "ingress", PassedOver: []api.PassedOver{passedBogons}},
			"policy ingress: the live program says default-drop by rule 0, the reference model rule 8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &explainer{places: compile.RulePlaces(parsed(t, site)), seen: c.seen}
			var got api.HookAnswer
			e.decided(&got, c.reason, c.rule, c.index, policies)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if e.out.Bug != c.bug {
				t.Errorf("bug %q, want %q", e.out.Bug, c.bug)
			}
		})
	}
}

// TestByPolicy: what a policy lets through or drops is its own, malformed packets and drops for other reasons are not.
func TestByPolicy(t *testing.T) {
	no := []abi.Reason{}
	for r := range abi.ReasonMax {
		if !byPolicy(r) {
			no = append(no, r)
		}
	}
	for _, r := range []abi.Reason{abi.ReasonRuleAccept, abi.ReasonRuleDrop, abi.ReasonDefaultAccept, abi.ReasonDefaultDrop, abi.ReasonFailsafe,
		abi.ReasonSystem, abi.ReasonFragmentAccept, abi.ReasonFragmentDrop, abi.ReasonFragmentDefaultAccept, abi.ReasonFragmentDefaultDrop, abi.ReasonForwarded,
		abi.ReasonLimitAccept, abi.ReasonLimitDrop} {
		for _, n := range no {
			if n == r {
				t.Errorf("%s is a policy's reason", r)
			}
		}
	}
	for _, r := range no {
		if r.Fate() != abi.FateDrop && r != abi.ReasonEstablished && r != abi.ReasonICMPError && r != abi.ReasonFragmentTracked {
			t.Errorf("%s passes by some policy", r)
		}
	}
}
