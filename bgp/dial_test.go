package bgp_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

func TestASessionThatDoesNotComeUpSaysWhyWhereThatCanBeKnown(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("tell nobody"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.tor(t, 0, `password "something else";`)
	theirs := s.tor(t, 1, `password "something else";`)
	s.tor(t, 3, "", "192.0.2.0/24") // knows nobody but .2
	gw := s.gw.Child(t, fresh)
	want := gateway(5)
	want.Neighbors[0].PasswordFile = key
	want.Neighbors[3].LocalAddress = addr("198.18.3.3")
	s.gw.Address(t, "up3", "198.18.3.3/24")
	want.Neighbors[4].Address, want.Neighbors[4].Multihop = addr("203.0.113.4"), 3
	apply(t, gw, want)

	says := map[string]string{
		"tor-a": "198.18.0.1 port 179 does not answer: is the password the same at both ends? If it is: does BGP run there, and is there no filter on the way?",
		"tor-b": "198.18.1.1 port 179 does not answer: is it there, is there no filter on the way, does it want a password?",
		"tor-c": "198.18.2.1 port 179 refuses the connection: does BGP run there, on this port?",
		"tor-d": "198.18.3.1 port 179 takes the connection and ends it: has it this end's address as a neighbor?",
		"tor-e": "203.0.113.4 port 179 cannot be reached: network is unreachable",
	}
	dials := func() map[string]string {
		out := map[string]string{}
		for _, n := range nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil) {
			if n.LastDial != nil && !n.LastDial.Time.IsZero() {
				out[n.Name] = n.LastDial.Error
			}
		}
		return out
	}
	nstest.Eventually(t, 30*time.Second, func() string { return nstest.Want("attempts", dials(), says) })

	theirs.Configure(t, torConfig(1, "198.18.1.1", "198.18.1.2", ""))
	want.Neighbors[2].Shutdown = true
	apply(t, gw, want)
	delete(says, "tor-b") // is up
	delete(says, "tor-c") // should not be
	nstest.Eventually(t, 30*time.Second, func() string { return nstest.Want("attempts", dials(), says) })
}
