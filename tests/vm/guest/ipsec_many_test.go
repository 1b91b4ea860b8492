//go:build vmguest

package guest

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/crypto/ipsec"
	"sluice/crypto/path"
)

// The figures are those of an emulated processor; what counts here is that all is there. A thousand take minutes.
func TestESPManyPeers(t *testing.T) {
	const many = 200
	s := newESPSite(t, outer{false, ipsec.None})
	n := s.a
	n.want = clone(n.want)
	w := &n.want.Tunnels[0]
	secret := w.Peers[0].SecretFile
	w.Peers, w.Routes = nil, nil
	for i := range many {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 30 + byte(i>>8), byte(i), 0}), 24)
		w.Peers = append(w.Peers, ipsec.Peer{
			Name: fmt.Sprintf("p%03d", i), ID: fmt.Sprintf("p%03d", i), SecretFile: secret, Prefixes: []netip.Prefix{prefix},
			Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}), 0),
		})
		w.Routes = append(w.Routes, path.Route{Prefix: prefix, Metric: 100})
	}
	took := stopwatch(t)
	n.converge(t)
	took("peers made")
	if ops := n.converge(t); len(ops) != 0 {
		t.Errorf("a second apply does %d things", len(ops))
	}
	took("nothing to do, observed and compared")
	w.Peers = slices.Clone(w.Peers)
	w.Peers[many/2].Prefixes = append(slices.Clone(w.Peers[many/2].Prefixes), netip.MustParsePrefix("10.99.0.0/24"))
	said := n.converge(t)
	took("one peer changed")
	if diff := cmp.Diff([]string{"update peer p100 of fra1: add 10.99.0.0/24"}, said); diff != "" {
		t.Error(diff)
	}
	// As if every peer had been heard.
	n.stop()
	file := filepath.Join(n.dir, "ipsec", "fra1.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.ReplaceAll(data, []byte(`"heard":0`), []byte(`"heard":70`)), 0o600); err != nil {
		t.Fatal(err)
	}
	n.boot(t)
	took("")
	if said := strings.Join(n.converge(t), "\n"); strings.Count(said, "repair") != many {
		t.Errorf("it does:\n%s", said)
	}
	took("states for receiving made")
	if got := len(n.states(t)); got != 4*many {
		t.Errorf("%d states", got)
	}
	before := usage(t)
	n.keep(t)
	time.Sleep(10 * time.Second)
	n.end()
	n.end = nil
	t.Logf("the keeper takes %.1f %% of the emulated core", float64(usage(t)-before)/float64(10*time.Second)*100)
	took("")
	n.rotate(t)
	took("epochs begun")
	n.want = ipsec.State{}
	n.converge(t)
	took("all removed")
	if left := n.states(t); len(left) != 0 {
		t.Errorf("%d states left", len(left))
	}
}

// stopwatch returns a function that logs the time since the last call.
func stopwatch(t *testing.T) func(what string) {
	last := time.Now()
	return func(what string) {
		t.Helper()
		if what != "" {
			t.Logf("%s: %s", what, time.Since(last).Round(time.Millisecond))
		}
		last = time.Now()
	}
}

// usage is the CPU time of this process.
func usage(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
