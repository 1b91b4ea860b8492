package wireguard

import (
	"slices"
	"strings"
	"testing"

	"sluice/crypto/path"
)

// twoTunnels are two userspace tunnels of one peer each, with a route to it.
func twoTunnels(t *testing.T) State {
	t.Helper()
	var s State
	for i, name := range []string{"fra1", "fra2"} {
		key := newKey(t, t.TempDir(), name)
		prefix := list([]string{"10.20.0.0/16", "10.30.0.0/16"}[i])
		s.Tunnels = append(s.Tunnels, Tunnel{Name: name, Backend: Userspace, PrivateKeyFile: key.file, PublicKey: key.public, ListenPort: port + uint16(i), MTU: 1420,
			Peers: []Peer{{Name: "a", PublicKey: publicKey(t), AllowedIPs: prefix}}, Routes: []path.Route{{Prefix: prefix[0], Metric: 7}}})
	}
	return s
}

func TestRoutesAreWithdrawnFromATunnelWhoseProcessHasEnded(t *testing.T) {
	d, s := manyDriver(t)
	want := twoTunnels(t)
	if _, err := converge(t.Context(), d, want); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Observe(t.Context()); err != nil { // as after every apply
		t.Fatal(err)
	}
	s.killProcess(t, "fra1")
	if err := d.Withhold(t.Context(), map[string][]string{"fra1": {want.Tunnels[0].Peers[0].PublicKey}}); err != nil {
		t.Error(err)
	}
	routes, err := d.links.Routes()
	if err != nil {
		t.Fatal(err)
	}
	var left []path.Route
	for _, of := range routes {
		left = append(left, of...)
	}
	if !slices.Equal(left, want.Tunnels[1].Routes) {
		t.Errorf("routes %v, want those of fra2 alone", left)
	}
	if err := d.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAStoppedProcessHidesItsOwnTunnelAlone(t *testing.T) {
	d, s := manyDriver(t)
	if _, err := converge(t.Context(), d, twoTunnels(t)); err != nil {
		t.Fatal(err)
	}
	stopProcess(t, s.process(t, "fra1"))
	got, err := d.Status(t.Context())
	if err == nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].Running || !strings.Contains(got[0].Why, "did not answer in 2s") || len(got[0].Peers) != 0 {
		t.Errorf("the stopped one: %+v", got[0])
	}
	if !got[1].Running || got[1].Why != "" || len(got[1].Peers) != 1 {
		t.Errorf("the other one: %+v", got[1])
	}
	d.mu.Lock() // as a step that waits for the stopped process has it
	last, err := d.Status(t.Context())
	d.mu.Unlock()
	if err == nil || !slices.EqualFunc(last, got, func(a, b TunnelStatus) bool { return a.Name == b.Name && a.Running == b.Running }) {
		t.Errorf("while a step waits: %+v, %v", last, err)
	}
	until(t, "all goes down", func() bool { return d.Down(t.Context()) == nil }) // the stopped one was killed and is ending
}
