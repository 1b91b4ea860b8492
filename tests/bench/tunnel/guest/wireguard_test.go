//go:build vmguest

package guest

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"

	"sluice/crypto/keys"
	"sluice/crypto/wireguard"
	"sluice/tests/bench/tunnel/trial"
)

const firstPort = 51820

// wireGuard gives each path a tunnel by Sluice's own driver, with the kernel's backend.
func wireGuard(t *testing.T, s *trial.Site) {
	type key struct{ file, public string }
	own := map[*trial.End][]key{}
	for _, e := range s.Ends() {
		for range s.Paths {
			k := key{file: filepath.Join(t.TempDir(), "key")}
			var err error
			k.public, err = keys.Generate(k.file)
			must(t, err)
			own[e] = append(own[e], k)
		}
	}
	for _, e := range s.Ends() {
		var want wireguard.State
		for i := range s.Paths {
			k, port := own[e][i], uint16(firstPort+i)
			want.Tunnels = append(want.Tunnels, wireguard.Tunnel{
				Name: trial.Tunnel(i), Backend: wireguard.Kernel, PrivateKeyFile: k.file, PublicKey: k.public, ListenPort: port, MTU: s.Wire.MTU - s.Overhead,
				Peers: []wireguard.Peer{{Name: "other", PublicKey: own[e.Other()][i].public, Endpoint: netip.AddrPortFrom(e.Other().Outer(i), port),
					AllowedIPs: []netip.Prefix{e.Other().Network(i)}}},
			})
		}
		must(t, e.Box.Do(func() error { return converge(t, want) }))
		for i := range s.Paths {
			must(t, s.Through(e, i))
		}
	}
}

func converge(t *testing.T, want wireguard.State) error {
	driver, err := wireguard.New(slog.New(slog.DiscardHandler), wireguard.Options{})
	if err != nil {
		return err
	}
	defer driver.Stop()
	for _, op := range driver.Diff(wireguard.State{}, want) {
		if err := driver.Apply(t.Context(), op); err != nil {
			return err
		}
	}
	return nil
}
