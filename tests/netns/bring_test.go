package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/control/engine"
	"sluice/crypto/keys"
)

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
	const closed = 81 // no rule accepts it
	if s.unanswered(s.Client, lab.Gateway4, closed) == nil {
		t.Fatal("nothing arrives without XDP, so that what is dropped with it says nothing")
	}

	if err := s.Gateway.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := api.Show[api.Status](t.Context(), s.api, "status")
		return err
	})
	s.established()
	s.silent(s.Client, lab.Gateway4, closed)
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
	eventually(t, func() error {
		st, r := s.status().Engine, s.must(s.Gateway.Namespace, "ip route show 10.20.0.0/16")
		if !st.Applied || !strings.Contains(r, "dev fra1 ") || s.conditionOf(engine.ConditionInSync).Status != engine.True {
			return fmt.Errorf("applied %v, the route is %q, conditions %+v", st.Applied, r, st.Conditions)
		}
		return nil
	})
	s.established()
	s.silent(s.Client, lab.Gateway4, closed)
}

func (s *site) conditionOf(kind string) engine.Condition {
	s.t.Helper()
	list := s.status().Engine.Conditions
	i := slices.IndexFunc(list, func(c engine.Condition) bool { return c.Type == kind })
	if i < 0 {
		s.t.Fatalf("no condition %s", kind)
	}
	return list[i]
}
