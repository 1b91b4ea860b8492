package netns

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/control/api"
	"sluice/crypto/keys"
)

// newShownTunnels is newTunnels with metrics.
func newShownTunnels(t *testing.T) *site {
	t.Helper()
	s := newTunnels(t, []string{"dns: [198.51.100.54]}", "dns: [198.51.100.54]}\n\ntelemetry: {metrics: 127.0.0.1:9750}"})
	return s
}

// peerOf is the one peer of a tunnel, as `show tunnels` tells it.
func (s *site) peerOf(tunnel string) api.TunnelPeer {
	s.t.Helper()
	for _, t := range show[api.Tunnels](s, "tunnels").Tunnels {
		if t.Name == tunnel && len(t.Peers) == 1 {
			return t.Peers[0]
		}
	}
	s.t.Fatalf("there is no tunnel %s of one peer", tunnel)
	return api.TunnelPeer{}
}

// metric waits until a metric holds what is wanted of it.
func (s *site) metric(name string, good func(float64) bool) {
	s.t.Helper()
	eventually(s.t, func() error {
		all, err := s.scrape()
		if err != nil {
			return err
		}
		if v, ok := all[name]; !ok || !good(v) {
			return fmt.Errorf("%s is %g (there: %v)", name, v, ok)
		}
		return nil
	})
}

func is(want float64) func(float64) bool { return func(v float64) bool { return v == want } }

func isPositive(v float64) bool { return v > 0 }

func TestATunnelThatGoesDownAndComesBackIsSeenEverywhere(t *testing.T) {
	t.Parallel()
	s := newShownTunnels(t)
	const of = `{peer="fra1",tunnel="fra1"}`
	eventually(t, func() error {
		p := s.peerOf("fra1")
		if p.State != api.PeerUp || p.Why != "" || p.Probe == nil || p.Probe.Sent < 3 || p.Probe.Sent == p.Probe.Lost || p.Probe.MedianRTT <= 0 || p.RxBytes == 0 || p.TxBytes == 0 || p.LastHeard.IsZero() {
			return fmt.Errorf("the peer is %+v, its probe %+v", p, p.Probe)
		}
		return nil
	})
	p := s.peerOf("fra1")
	if p.Endpoint != directEndpoint || p.EndpointFrom != directEndpoint || !slices.Equal(p.Endpoints, []string{directEndpoint}) || p.Routes != api.RoutesInstalled ||
		time.Since(p.LastHandshake) > time.Minute || time.Since(p.LastHeard) > time.Minute || p.Metric != 100 || p.PublicKey == "" ||
		!slices.Equal(p.PublicKeys, []string{p.PublicKey}) || !slices.Equal(p.Prefixes, []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}) {
		t.Errorf("the peer is %+v", p)
	}
	all := show[api.Tunnels](s, "tunnels")
	if tun := all.Tunnels[0]; tun.Name != "fra1" || tun.Type != "wireguard" || tun.Backend == "" || !tun.Running || !tun.Strict || !tun.ClampMSS || tun.MTU != 1440 ||
		tun.Underlay != 1500 || tun.ListenPort != 51820 || tun.Local != "198.18.0.2:51820" || tun.PublicKey == "" || tun.StagedPublicKey != "" {
		t.Errorf("the tunnel is %+v", tun)
	}
	for name, good := range map[string]func(float64) bool{
		`sluice_tunnel_peer_up{peer="fra1",state="up",tunnel="fra1"}`:               is(1),
		"sluice_tunnel_routes_withdrawn" + of:                                       is(0),
		"sluice_tunnel_last_handshake_seconds" + of:                                 isPositive,
		`sluice_tunnel_bytes_total{direction="received",peer="fra1",tunnel="fra1"}`: isPositive,
		`sluice_tunnel_probe_rtt_seconds{of="median",peer="fra1",tunnel="fra1"}`:    isPositive,
		`sluice_tunnel_mtu_bytes{tunnel="fra1"}`:                                    is(1440),
	} {
		s.metric(name, good)
	}

	f := s.follow(false)
	s.cut(directEndpoint, true)
	down := f.hears(t, "the peer that is down", func(e api.Event) bool { return e.Tunnel != nil && e.Tunnel.Kind == "down" })
	if down.Tunnel.Tunnel != "fra1" || down.Tunnel.Peer != "fra1" || !strings.Contains(down.Tunnel.Text, "probes of 10.200.0.0 in a row were lost") {
		t.Errorf("told of as %+v", down.Tunnel)
	}
	eventually(t, func() error { // it is told before its routes are withdrawn
		p := s.peerOf("fra1")
		if p.State != api.PeerDown || !strings.Contains(p.Why, "10.200.0.0") || p.Routes != api.RoutesWithdrawn || !p.Probe.Down || p.Probe.Lost < 3 {
			return fmt.Errorf("while it is cut the peer is %+v, its probe %+v", p, p.Probe)
		}
		return nil
	})
	s.metric(`sluice_tunnel_peer_up{peer="fra1",state="down",tunnel="fra1"}`, is(0))
	s.metric("sluice_tunnel_routes_withdrawn"+of, is(1))
	s.metric("sluice_tunnel_probe_loss_ratio"+of, isPositive)
	s.says(s.sluice("show", "tunnels"), 0, "fra1", "wireguard/", "down", "withdrawn", "fra1, peer fra1: probes of 10.200.0.0 are not answered")
	s.says(s.sluice("show", "tunnels", "fra1"), 0, "peer fra1: down, probes of 10.200.0.0", "withdrawn, metric 100", directEndpoint)
	s.says(s.sluice("show", "status"), 0, "TunnelsDegraded=True", "1 peer is in trouble: tunnel fra1 to fra1: probes of 10.200.0.0", "1 down: fra1 fra1 probes of 10.200.0.0")

	s.cut(directEndpoint, false)
	f.hears(t, "the peer that is up", func(e api.Event) bool { return e.Tunnel != nil && e.Tunnel.Kind == "up" && e.Tunnel.Tunnel == "fra1" })
	eventually(t, func() error {
		if p := s.peerOf("fra1"); p.State != api.PeerUp || p.Routes != api.RoutesInstalled {
			return fmt.Errorf("the peer is %+v", p)
		}
		return nil
	})
	s.metric(`sluice_tunnel_peer_up{peer="fra1",state="up",tunnel="fra1"}`, is(1))
}

func TestAKeyIsRotatedFromTheCommandLine(t *testing.T) {
	t.Parallel()
	s := newShownTunnels(t)
	e := s.startEchoes(s.Gateway.Namespace, "10.200.0.0")
	e.more(20)
	s.wants(s.sluice("key", "rotate", "fra9"), 1, `there is no tunnel "fra9"`)
	s.wants(s.sluice("key", "rotate", "fra1"), 1, "tunnel fra1 has no next key", "sluice key rotate fra1 --stage")
	staged := s.sluice("key", "rotate", "fra1", "--stage", "-o", "json")
	var r api.Rotated
	if err := json.Unmarshal([]byte(staged.out), &r); err != nil || staged.code != 0 || !r.Staged || r.PublicKey == "" || r.PublicKey == r.OldPublicKey {
		t.Fatalf("%+v (%v)", staged, err)
	}
	s.says(s.sluice("key", "rotate", "fra1", "--stage"), 0, "was staged before: "+r.PublicKey)
	if tun := show[api.Tunnels](s, "tunnels").Tunnels[0]; tun.StagedPublicKey != r.PublicKey || tun.PublicKey != r.OldPublicKey {
		t.Errorf("the tunnel is %+v", tun)
	}
	secrets := s.secrets()

	// The peer does not know it yet.
	s.wants(s.sluice("key", "rotate", "fra1"), 1, "fra1", "the old one is in use again", r.PublicKey)
	e.more(20)

	text, err := os.ReadFile(s.Peer.File)
	if err != nil {
		t.Fatal(err)
	}
	both := edited(t, string(text), "["+r.OldPublicKey+"]", "["+r.OldPublicKey+", "+r.PublicKey+"]")
	if err := os.WriteFile(s.Peer.File, []byte(both), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := s.in(s.Peer.Namespace, binary(), "apply", "-c", s.Peer.File, "--socket", s.Peer.Socket); a.code != 0 {
		t.Fatalf("the peer's apply: %+v", a)
	}
	f := s.follow(false)
	rotated := s.sluice("key", "rotate", "fra1")
	// The peer has 3 s to take it: one that stands still for so long may have the next ones.
	for tries := 1; tries < 5 && rotated.code == 1 && strings.Contains(rotated.err, "the old one is in use again"); tries++ {
		rotated = s.sluice("key", "rotate", "fra1")
	}
	s.says(rotated, 0, "tunnel fra1 uses its new key: "+r.PublicKey, "taken by 1 peer: fra1", "take "+r.OldPublicKey+" out of public_keys")
	f.hears(t, "the new key", func(e api.Event) bool {
		return e.Tunnel != nil && e.Tunnel.Kind == "rotated" && e.Tunnel.Tunnel == "fra1" && strings.Contains(e.Tunnel.Text, r.PublicKey)
	})
	e.more(50)
	e.loses(0, "over the rotation")
	if tun := show[api.Tunnels](s, "tunnels").Tunnels[0]; tun.PublicKey != r.PublicKey || tun.StagedPublicKey != "" {
		t.Errorf("the tunnel is %+v", tun)
	}
	peer := s.Peer.API()
	defer peer.Close()
	theirs, err := api.Show[api.Tunnels](t.Context(), peer, "tunnels")
	if err != nil || theirs.Tunnels[0].Peers[0].PublicKey != r.PublicKey || len(theirs.Tunnels[0].Peers[0].PublicKeys) != 2 {
		t.Errorf("the other end shows %+v (%v)", theirs.Tunnels, err)
	}
	s.nothingToDo()
	s.keepsSecret(secrets)
}

// secrets are the private keys of both ends, by file, the raw bytes.
func (s *site) secrets() map[string][]byte {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir, "*.key*"))
	if err != nil || len(files) < 4 {
		s.t.Fatalf("key files %q (%v)", files, err)
	}
	out := map[string][]byte{}
	for _, file := range files {
		key, err := keys.Load(file)
		if err != nil {
			s.t.Fatal(err)
		}
		secret := key.Bytes()
		out[filepath.Base(file)] = secret[:]
	}
	return out
}

// leaked names the secrets that stand in a text, in any form that a program writes bytes in.
func leaked(text []byte, secrets map[string][]byte) (names []string) {
	for name, secret := range secrets {
		// Base64 is cut where what follows would change it: 30 bytes are 40 characters.
		hexed, coded := hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret)
		for _, form := range []string{
			string(secret), hexed, strings.ToUpper(hexed), coded[:40], base64.URLEncoding.EncodeToString(secret[:30]), base64.StdEncoding.EncodeToString([]byte(coded))[:40],
			strings.Trim(fmt.Sprint(secret), "[]"), strings.ReplaceAll(strings.Trim(fmt.Sprint(secret), "[]"), " ", ","), fmt.Sprintf("% x", secret),
		} {
			if bytes.Contains(text, []byte(form)) {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// keepsSecret fails where a secret stands, in any form, in what the daemons said or keep, or in what they answer.
func (s *site) keepsSecret(secrets map[string][]byte) {
	s.t.Helper()
	looked := 0
	look := func(where string, text []byte) {
		looked++
		for _, name := range leaked(text, secrets) {
			s.t.Errorf("%s holds the secret of %s", where, name)
		}
	}
	own, found := map[string]bool{}, 0 // the key files themselves, which prove that a secret is found where one is
	for name := range secrets {
		own[name], own[strings.TrimSuffix(name, ".next")] = true, true
		own[strings.TrimSuffix(name, ".next")+".old"] = true
	}
	err := filepath.WalkDir(s.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if own[filepath.Base(path)] {
			found += len(leaked(text, secrets))
			return err
		}
		look(path, text)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range api.Nouns {
		look("show "+n.Name, []byte(s.sluice("show", n.Name, "-o", "json").out))
		look("show "+n.Name, []byte(s.sluice("show", n.Name).out))
	}
	for _, words := range []string{"show tunnels fra1", "show config", "show config -o json", "history -o json", "plan -c " + s.Gateway.File} {
		look(words, []byte(s.sluice(strings.Fields(words)...).out))
	}
	if looked < 40 || found < len(secrets) {
		s.t.Errorf("only %d places were looked at, and %d key files found", looked, found)
	}
}

// TestThePresharedKeyIsNamedWhereHandshakesArriveAndComeToNothing: the peer's handshakes prove its public key and ours. Both devices
// forget the other end first, or the session of before would last. Of two ends that both call, one may always be the faster, and the
// other then only answers; so what the gateway says does not arrive, and the peer is the one that calls.
func TestThePresharedKeyIsNamedWhereHandshakesArriveAndComeToNothing(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, nil)
	psk, real := filepath.Join(s.Dir, "fra1.psk"), s.peerOf("fra1").PublicKey
	other, err := keys.Generate(filepath.Join(s.Dir, "other.key"))
	if err == nil {
		err = keys.GeneratePSK(psk)
	}
	if err != nil {
		t.Fatal(err)
	}
	own := show[api.Tunnels](s, "tunnels").Tunnels[0].PublicKey
	theirs := func(from, to string) {
		text, err := os.ReadFile(s.Peer.File)
		if err == nil {
			err = os.WriteFile(s.Peer.File, []byte(edited(t, string(text), from, to)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.says(s.in(s.Peer.Namespace, binary(), "apply", "-c", s.Peer.File, "--socket", s.Peer.Socket), 0)
	}
	const deaf = " PREROUTING -p udp -s 198.18.0.2 -d 198.18.0.6 --dport 51820 -j DROP"
	s.must(s.ToR, "iptables -t raw -I"+deaf)
	s.edit(real, other)
	s.apply()
	theirs(own, other)
	theirs(other, own)
	s.edit("public_keys: ["+other+"]", "public_keys: ["+real+"]\n        preshared_key_file: "+psk)
	s.apply()
	eventually(t, func() error {
		if p := s.peerOf("fra1"); p.State == api.PeerUp || !strings.Contains(p.Why, "no handshake yet, but it calls, so the public keys fit: check the preshared key") {
			return fmt.Errorf("the peer is %s: %s", p.State, p.Why)
		}
		return nil
	})
	s.must(s.ToR, "iptables -t raw -D"+deaf)
	s.edit("\n        preshared_key_file: "+psk, "")
	s.apply()
	eventually(t, func() error {
		if p := s.peerOf("fra1"); p.State != api.PeerUp || p.Why != "" {
			return fmt.Errorf("without the preshared key the peer is %s: %s", p.State, p.Why)
		}
		return nil
	})
}
