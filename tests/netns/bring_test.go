package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/control/engine"
	"sluice/crypto/keys"
)

// closedPort is one that no rule accepts.
const closedPort = 81

// TestAForeignRouteInATunnelsPlaceKeepsNothingElseFromComingUp is a boot, with a route in the place of one of ours.
func TestAForeignRouteInATunnelsPlaceKeepsNothingElseFromComingUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := filepath.Join(s.Dir, "fra1.key")
	if _, err := keys.Generate(file); err != nil {
		t.Fatal(err)
	}
	public, err := keys.Generate(file + ".peer")
	if err != nil {
		t.Fatal(err)
	}
	s.edit("\nbgp:\n", fmt.Sprintf(`
tunnels:
  - name: fra1
    type: wireguard
    local: {address: 198.18.0.2, port: 51820}
    addresses: [10.200.0.1/31]
    wireguard: {private_key_file: %s}
    peers:
      - {name: fra1, endpoints: ["198.18.0.6:51820"], public_keys: [%q], prefixes: [10.20.0.0/16, 10.30.0.0/16]}

bgp:
`, file, public))
	s.start()
	s.established()
	s.terminate()
	if err := os.RemoveAll(s.Gateway.BPFDir); err != nil {
		t.Fatal(err)
	}
	s.must(s.Gateway.Namespace, "ip link del fra1")
	s.must(s.Gateway.Namespace, "ip route add 10.20.0.0/16 via 198.18.0.1")
	s.unguarded()

	if err := s.Gateway.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := api.Show[api.Status](t.Context(), s.api, "status")
		return err
	})
	s.established()
	s.silent(s.Client, lab.Gateway4, closedPort)
	if r := s.must(s.Gateway.Namespace, "ip route show 10.30.0.0/16"); !strings.Contains(r, "dev fra1 ") {
		t.Errorf("the tunnel's other route: %q", r)
	}
	const why = "wireguard: add route 10.20.0.0/16 dev fra1 metric 0: route 10.20.0.0/16 metric 0 (protocol boot) exists and is not Sluice's"
	if said := s.sluice("show", "status").out; strings.Count(said, why) == 0 {
		t.Errorf("status does not say %q:\n%s", why, said)
	}
	for kind, want := range map[string]engine.ConditionValue{engine.ConditionDegraded: engine.True, engine.ConditionInSync: engine.False} {
		if c := s.conditionOf(kind); c.Status != want || strings.Count(c.Message, "is not Sluice's") > 1 {
			t.Errorf("condition %+v", c)
		}
	}

	s.must(s.Gateway.Namespace, "ip route del 10.20.0.0/16 via 198.18.0.1")
	within(t, 3*patience, func() error { // it is tried again after a minute at most
		st, r := s.status().Engine, s.must(s.Gateway.Namespace, "ip route show 10.20.0.0/16")
		if !st.Applied || !strings.Contains(r, "dev fra1 ") || s.conditionOf(engine.ConditionInSync).Status != engine.True {
			return fmt.Errorf("applied %v, the route is %q, conditions %+v", st.Applied, r, st.Conditions)
		}
		return nil
	})
	s.established()
	s.silent(s.Client, lab.Gateway4, closedPort)
}

// TestWhatCannotBeMadeKeepsNothingElseFromComingUp is a boot of a machine that has lost a NIC and a tunnel's key, and has somebody else's
// link of another tunnel's name.
func TestWhatCannotBeMadeKeepsNothingElseFromComingUp(t *testing.T) {
	t.Parallel()
	s := withoutWeb2(t)
	gateway := s.Gateway.Namespace
	s.must(gateway, "ip link add lan9 type veth peer name lan9p")
	text, key := "\ntunnels:\n", ""
	for i, name := range []string{"fra1", "fra2"} {
		key = filepath.Join(s.Dir, name+".key")
		if _, err := keys.Generate(key); err != nil {
			t.Fatal(err)
		}
		public, err := keys.Generate(key + ".peer")
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf(`  - name: %s
    type: wireguard
    local: {address: 198.18.0.2, port: %d}
    addresses: [10.200.%d.1/31]
    strict: true
    wireguard: {private_key_file: %s}
    peers: [{name: far, endpoints: ["198.18.0.6:51820"], public_keys: [%q], prefixes: [10.2%d.0.0/16]}]
`, name, 51820+i, i, key, public, i)
	}
	s.edit("\nbgp:\n", text+"\nbgp:\n", "\nmanagement:\n", `
  - {name: lan9, role: downstream, addresses: [10.9.0.1/24], bandwidth: {egress: 1Gbps}}
routes: [{prefix: 10.90.0.0/16, via: [10.9.0.2]}]

management:
`)
	s.start()
	eventually(t, func() error { return s.learned(bothDefaults) })
	s.terminate()
	if err := errors.Join(os.RemoveAll(s.Gateway.BPFDir), os.Rename(key, key+".away")); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"fra1", "fra2", "lan9"} {
		s.must(gateway, "ip link del "+link)
	}
	s.must(gateway, "ip link add fra1 type veth peer name fra1p")
	s.unguarded()

	if err := s.Gateway.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		st, err := api.Show[api.Status](t.Context(), s.api, "status")
		if err == nil && st.Established < 2 {
			err = fmt.Errorf("%d sessions are up", st.Established)
		}
		return err
	})
	s.silent(s.Client, lab.Gateway4, closedPort)
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	if said := s.must(gateway, "ip link show fra1"); !strings.Contains(said, "group default") || strings.Contains(said, ",UP") {
		t.Errorf("somebody else's link was changed: %s", said)
	}
	eventually(t, func() error { // what failed is told once the rest has been brought up
		said := s.sluice("show", "status").out
		for _, want := range []string{
			"wireguard: create tunnel fra1", "is not Sluice's", "wireguard: create tunnel fra2", key,
			"InterfacesPresent=False Missing lan9: there is no interface lan9",
		} {
			if !strings.Contains(said, want) {
				return fmt.Errorf("status does not say %q:\n%s", want, said)
			}
		}
		return nil
	})
	s.says(s.addWeb2("--policy", s.policy(web2Policy)), 0, "web-2")
	s.established()
	s.answers(s.Client, lab.Web4[1], 80, "web-2")
	s.says(s.sluice("plan", "-c", s.Gateway.File), 1, "there is no interface lan9", key)

	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	s.must(gateway, "ip link del fra1")
	s.must(gateway, "ip link add lan9 type veth peer name lan9p")
	within(t, 3*patience, func() error { // what failed is tried again after a minute at most
		st := s.status().Engine
		routes := s.must(gateway, "ip route show table all")
		for _, want := range []string{"10.20.0.0/16 dev fra1 ", "10.21.0.0/16 dev fra2 ", "10.90.0.0/16 via 10.9.0.2 dev lan9 "} {
			if !strings.Contains(routes, want) {
				return fmt.Errorf("no route %s", want)
			}
		}
		for _, c := range st.Conditions {
			if c.Type == engine.ConditionInterfaces || c.Type == engine.ConditionInSync && c.Status != engine.True {
				return fmt.Errorf("conditions %+v", st.Conditions)
			}
		}
		if !s.iface("lan9").TCX || !st.Applied {
			return fmt.Errorf("applied %v, tcx is not on lan9", st.Applied)
		}
		return nil
	})
	s.established()
	s.silent(s.Client, lab.Gateway4, closedPort)
}

// unguarded waits until the port that nobody serves refuses the client: else what is dropped with XDP says nothing.
func (s *site) unguarded() {
	s.t.Helper()
	eventually(s.t, func() error {
		if s.unanswered(s.Client, lab.Gateway4, closedPort) == nil {
			return errors.New("nothing arrives without XDP")
		}
		return nil
	})
}

func (s *site) conditionOf(kind string) engine.Condition {
	s.t.Helper()
	c := s.condition(kind)
	if c == nil {
		s.t.Fatalf("no condition %s", kind)
	}
	return *c
}
