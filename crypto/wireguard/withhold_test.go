package wireguard

import (
	"slices"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/path"
)

func TestWithheldRoutesGoAtOnceAndNoStepOfBeforeBringsThemBack(t *testing.T) {
	d, _ := manyDriver(t)
	key := newKey(t, t.TempDir(), "own")
	a := Peer{Name: "a", PublicKey: publicKey(t), AllowedIPs: list("10.20.0.0/16", "10.20.0.9/32")}
	b := Peer{Name: "b", PublicKey: publicKey(t), AllowedIPs: list("10.30.0.0/16")}
	of := func(routes []path.Route, peers ...Peer) State {
		slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
		return State{Tunnels: []Tunnel{{Name: "fra1", Backend: Userspace, PrivateKeyFile: key.file, PublicKey: key.public, ListenPort: port,
			MTU: 1420, Addresses: list("10.200.0.0/31"), Peers: peers, Routes: routes}}}
	}
	toA, toB := path.Route{Prefix: list("10.20.0.0/16")[0], Metric: 7}, path.Route{Prefix: list("10.30.0.0/16")[0], Metric: 7}
	probe := path.Route{Prefix: list("10.20.0.9/32")[0], Table: path.ProbeTable}
	want := of([]path.Route{toA, probe, toB}, a, b)
	planned := Diff(State{}, want)
	are := func(when string, routes ...path.Route) {
		t.Helper()
		have, err := d.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := have.Tunnels[0].Routes; !slices.Equal(got, routes) {
			t.Errorf("%s: routes %v, want %v", when, got, routes)
		}
	}
	steps := func(ops []Op) {
		t.Helper()
		for _, op := range ops {
			if err := d.Apply(t.Context(), op); err != nil {
				t.Fatal(err)
			}
		}
	}
	withhold := func(peers map[string][]string) {
		t.Helper()
		if err := d.Withhold(t.Context(), peers); err != nil {
			t.Fatal(err)
		}
	}
	settled := func(want State) {
		t.Helper()
		have, err := d.Observe(t.Context())
		if ops := Diff(have, d.Wanted(want)); err != nil || len(ops) > 0 {
			t.Errorf("steps are left: %q (%v)", said(ops), err)
		}
	}
	steps(planned)
	are("to begin with", toA, probe, toB)
	withhold(map[string][]string{"fra1": {a.PublicKey}})
	are("withheld", probe, toB)
	settled(want)
	steps(planned)
	are("after steps of before", probe, toB)
	settled(want)

	a.AllowedIPs, b.AllowedIPs = a.AllowedIPs[1:], list("10.20.0.0/16", "10.30.0.0/16")
	moved := of([]path.Route{toA, probe, toB}, a, b)
	have, err := d.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	steps(Diff(have, d.Wanted(moved)))
	are("once the prefix is another peer's", toA, probe, toB)
	withhold(map[string][]string{"fra1": {a.PublicKey, b.PublicKey}})
	are("that is withheld, too", probe)
	withhold(nil)
	are("before it is wanted again", probe)
	steps(Diff(State{}, d.Wanted(moved)))
	are("in the end", toA, probe, toB)
	withhold(map[string][]string{"gone": {a.PublicKey}}) // and its routes with it
	if err := d.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

func publicKey(t *testing.T) string {
	t.Helper()
	secret, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return secret.PublicKey().String()
}
