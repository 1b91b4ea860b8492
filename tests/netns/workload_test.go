package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/cmd/lab"
	"sluice/control/api"
)

const web2OfTheFile = `  - name: web-2
    interface: web-2
    addresses: [203.0.113.11, "2001:db8:100::11"]
    ingress: {default: drop, rules: [{name: web, protocol: tcp, ports: [80], action: accept}]}
    egress: {default: drop, rules: [{name: dns, to: [resolvers], protocol: udp, ports: [53], action: accept}]}
`

const web2Policy = `ingress:
  default: drop
  rules:
    - {name: web, protocol: tcp, ports: [80], action: accept}
egress:
  default: drop
  rules:
    - {name: dns, to: [resolvers], protocol: udp, ports: [53], action: accept}
`

// withoutWeb2 is a site whose file leaves web-2 to the API.
func withoutWeb2(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.edit(web2OfTheFile, "", "to: [web-1, web-2]", `to: [203.0.113.0/24, "2001:db8:100::/48"]`)
	return s
}

// policy writes a policy file for workload add.
func (s *site) policy(text string) (path string) {
	s.t.Helper()
	path = filepath.Join(s.t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *site) addWeb2(more ...string) said {
	s.t.Helper()
	return s.sluice(append([]string{"workload", "add", "web-2", "--interface", "web-2", "--address", "203.0.113.11,2001:db8:100::11"}, more...)...)
}

// says fails unless a command ended so and said that.
func (s *site) says(r said, code int, wants ...string) {
	s.t.Helper()
	for _, want := range wants {
		if r.code != code || !strings.Contains(r.out+r.err, want) {
			s.t.Errorf("exit code %d, want %d with %q:\n%s%s", r.code, code, want, r.out, r.err)
		}
	}
}

func (s *site) workload(name string) (w api.Workload) {
	s.t.Helper()
	for _, w := range show[[]api.Workload](s, "workloads") {
		if w.Name == name {
			return w
		}
	}
	return w
}

// state waits until a workload is in a state.
func (s *site) state(name, state string) api.Workload {
	s.t.Helper()
	var w api.Workload
	eventually(s.t, func() error {
		if w = s.workload(name); w.State != state {
			return fmt.Errorf("workload %s is %q, want %q: %+v", name, w.State, state, w)
		}
		return nil
	})
	return w
}

// serves fails unless web-2 answers on port 80 and is silent on 443, by IPv4 and IPv6.
func (s *site) servesWeb2() {
	s.t.Helper()
	for _, a := range []int{4, 6} {
		server := lab.Web4[1]
		if a == 6 {
			server = lab.Web6[1]
		}
		eventually(s.t, func() error { return s.get(s.Client, server, 80, "web-2") })
	}
	s.silent(s.Client, lab.Web4[1], 443)
}

var withoutAdvertisedWeb2 = []string{"203.0.113.0/24", "203.0.113.10/32", "2001:db8:100::/48", "2001:db8:100::10/128"}

func TestAWorkloadOfTheAPIIsServedAnnouncedAndOutlivesWhatRevisionsDo(t *testing.T) {
	t.Parallel()
	s := withoutWeb2(t)
	s.start()
	eventually(t, func() error { return s.bird.has(withoutAdvertisedWeb2...) })
	policy := s.policy(web2Policy)
	s.says(s.addWeb2("--policy", policy), 0, "workload web-2 is added and attached")
	s.servesWeb2()
	s.established() // web-2 is announced, too
	if w := s.workload("web-2"); w.Origin != "api" || w.Path != "redirect" || w.Index == 0 || w.IngressRules != 1 || w.Egress != "drop" || w.Out.Packets == 0 {
		t.Errorf("show workloads: %+v", w)
	}
	if w := s.workload("web-1"); w.Origin != "file" || w.State != "attached" {
		t.Errorf("show workloads: %+v", w)
	}
	s.says(s.addWeb2("--policy", policy), 0, "workload web-2 is unchanged and attached")
	explained := s.sluice("explain", "--in", "eth0", "--packet", "tcp 198.51.100.7:1234 > 203.0.113.11:443 flags=S")
	s.says(explained, 0, "workload/web-2/ingress")
	explained = s.sluice("explain", "--in", "web-2", "--packet", "udp 203.0.113.11:1234 > 198.51.100.53:53")
	s.says(explained, 0, "workload/web-2/egress/dns", "policy.yaml:8")

	// Neither an apply nor a rollback nor a restart touches it.
	s.edit("{name: e2e-gateway}", "{name: e2e-other}")
	s.apply()
	s.says(s.sluice("rollback", "1"), 0, "revision 3")
	s.servesWeb2()
	before := s.kept()
	w := s.watch()
	s.kill()
	w.goesOn()
	s.start()
	s.established()
	w.verdict()
	s.same("a restart", before, s.kept())
	s.state("web-2", "attached")

	// Another policy takes the place of the first one.
	s.says(s.addWeb2("--path", "stack", "--policy", s.policy("ingress: {default: drop}\n")), 0, "workload web-2 is replaced and attached")
	s.silent(s.Client, lab.Web4[1], 80)
	if w := s.workload("web-2"); w.Path != "stack" {
		t.Errorf("show workloads: %+v", w)
	}
	s.says(s.addWeb2(), 0, "workload web-2 is replaced and attached")
	s.answers(s.Client, lab.Web4[1], 80, "web-2")

	s.says(s.sluice("workload", "del", "web-2"), 0, "workload web-2 is removed")
	eventually(t, func() error { return s.bird.has(withoutAdvertisedWeb2...) })
	s.silent(s.Client, lab.Web4[1], 80)
	if pins := s.pins(); strings.Contains(pins, "web-2") {
		t.Errorf("pins of web-2 are left:\n%s", pins)
	}
	if out := s.must(s.Gateway.Namespace, "ip route show dev web-2") + s.must(s.Gateway.Namespace, "ip -o -4 addr show dev web-2"); strings.TrimSpace(out) != "" {
		t.Errorf("routes or addresses of web-2 are left:\n%s", out)
	}
	s.says(s.sluice("workload", "del", "web-2"), 1, "no workload web-2 was added by the API")
	s.says(s.sluice("workload", "del", "web-1"), 1, "web-1 is a workload of the file: take it out of the file")
	if e := s.status().Engine; !e.Applied || e.Revision != 3 {
		t.Errorf("status: %+v", e)
	}
}

func TestWhatTheFileHasCannotBeAddedAndWhatWasAddedTheFileCannotClaim(t *testing.T) {
	t.Parallel()
	s := withoutWeb2(t)
	if s.says(s.addWeb2(), 3, "could not reach the daemon"); t.Failed() {
		return
	}
	s.start()
	add := func(words string) said {
		return s.sluice(append([]string{"workload", "add"}, strings.Fields(words)...)...)
	}
	s.says(add("web-1 --interface x --address 203.0.113.20"), 1, "the name web-1 belongs to workload web-1 of the file", "gateway.yaml:")
	s.says(add("a --interface web-1 --address 203.0.113.20"), 1, "the interface web-1 belongs to workload web-1 of the file")
	s.says(add("a --interface x --address 203.0.113.10"), 1, "the address 203.0.113.10 belongs to workload web-1 of the file")
	s.says(add("a --interface eth0 --address 203.0.113.20"), 1, "the interface eth0 belongs to interfaces: of the file")
	s.says(add("a --interface x --address 198.18.0.2"), 1, "the address 198.18.0.2 belongs to interface eth0 of the file")
	s.says(add("attackers --interface x --address 203.0.113.20"), 1, "the name attackers belongs to a set of the file")
	s.says(add("a --interface x --address 203.0.113.0/24"), 1, "addresses[0]")
	s.says(add("a --interface x --address 203.0.113.20 --policy "+s.policy("ingress:\n  rules:\n    - {name: n, from: [nobody], action: accept}\n")),
		1, "policy.yaml:3:", "no set or workload is named", "nobody")
	s.says(add("a --interface x --address 203.0.113.20 --policy "+s.policy("name: b\n")), 1, "policy.yaml:1:1", "does not say its name")
	s.says(add("a --interface x"), 2, "address")
	if list := show[[]api.Workload](s, "workloads"); len(list) != 1 {
		t.Errorf("what was refused is there: %+v", list)
	}

	s.says(s.addWeb2("--policy", s.policy(web2Policy)), 0, "added and attached")
	s.says(add("b --interface x --address 203.0.113.11"), 1, "the address 203.0.113.11 belongs to workload web-2, which was added by the API")
	s.says(add("b --interface web-2 --address 203.0.113.20"), 1, "the interface web-2 belongs to workload web-2, which was added by the API")
	good := s.file
	for claim, want := range map[string]string{
		"web-2, interface: veth-y, addresses: [203.0.113.30]": "the name web-2 belongs to workload web-2, which was added by the API",
		"c, interface: web-2, addresses: [203.0.113.30]":      "the interface web-2 belongs to workload web-2",
		"c, interface: veth-y, addresses: [203.0.113.11]":     "the address 203.0.113.11 belongs to workload web-2",
	} {
		s.write(edited(t, good, "workloads:\n", "workloads:\n  - {name: "+claim+"}\n"))
		s.says(s.sluice("apply", "-c", s.Gateway.File), 1, want, "sluice workload del web-2", "gateway.yaml:")
	}
	s.write(edited(t, good, "  - {name: resolvers, prefixes: [198.51.100.53, \"2001:db8:c::53\"]}\n", "", "to: [resolvers], protocol: udp, ports: [53], action: accept}]}", "protocol: udp, action: accept}]}",
		"- {name: dns, to: [resolvers], protocol: udp, ports: [53], action: accept}\n", "- {name: dns, protocol: udp, ports: [53], action: accept}\n"))
	s.says(s.sluice("apply", "-c", s.Gateway.File), 1, "workload web-2, which was added by the API", "resolvers", "policy.yaml:8:")
	s.servesWeb2()
	if e := s.status().Engine; e.Revision != 1 || !e.Applied {
		t.Errorf("status: %+v", e)
	}
}
