package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/api"
)

// TestShowOneTunnel: the fixture has a tunnel of each kind, and peers in each state.
func TestShowOneTunnel(t *testing.T) {
	daemonOf(t, &box{})
	for _, name := range []string{"fra1", "ber1", "muc1", "par1"} {
		got := sluice(t, "show", "tunnels", name)
		if got.code != exitDone || got.err != "" {
			t.Fatalf("%s: %+v", name, got)
		}
		golden(t, filepath.Join("testdata/show", "tunnels-"+name+".golden.txt"), got.out)
		var one api.Tunnels
		js := sluice(t, "show", "tunnels", name, "-o", "json")
		if err := json.Unmarshal([]byte(js.out), &one); err != nil || len(one.Tunnels) != 1 || one.Tunnels[0].Name != name || len(one.XFRM) != 3 {
			t.Errorf("%s -o json: %+v (%v)", name, js, err)
		}
	}
	sluice(t, "show", "tunnels", "nix").is(t, outcome{exitNo, "", "sluice: there is no tunnel \"nix\"; `sluice show tunnels` lists them\n"})
}

func TestTunnelRestart(t *testing.T) {
	b := daemonOf(t, &box{})
	sluice(t, "tunnel", "restart", "fra1").is(t, done("tunnel fra1: process 4711 of version v1.4 was exchanged for 4812 of version v1.5\n"))
	if len(b.asked) != 1 || b.asked[0] != "restart fra1" {
		t.Errorf("the daemon was asked %q", b.asked)
	}
	sluice(t, "tunnel", "restart", "dead").is(t, done("tunnel dead: no process ran; 4812 of version v1.5 was started\n"))
	refused := &api.Failure{Message: "tunnel fra1 has no process of its own", Refused: true}
	daemonOf(t, &box{fail: refused})
	sluice(t, "tunnel", "restart", "fra1").is(t, outcome{exitNo, "", "sluice: " + refused.Message + "\n"})
}

func TestKeyRotate(t *testing.T) {
	wg := api.Rotated{Tunnel: "fra1", Type: "wireguard", Backend: "kernel", File: "/k/fra1.key", OldFile: "/k/fra1.key.old", PublicKey: "NEW=", OldPublicKey: "OLD=",
		Peers: []api.RotatedPeer{{Name: "a", InTouch: true}, {Name: "b", InTouch: true}, {Name: "c"}}}
	staged, again, forgotten := wg, wg, wg
	forgotten.Forgotten = true
	staged.Staged, staged.File = true, "/k/fra1.key.next"
	again.Staged, again.File, again.Again = true, "/k/fra1.key.next", true
	const waits = `it waits in /k/fra1.key.next; OLD= is still in use
next, at the other ends: add it to this node's public_keys, behind OLD=, and apply:
  public_keys: [OLD=, NEW=]
then, here: sluice key rotate fra1
`
	for _, c := range []struct {
		name    string
		rotated api.Rotated
		want    string
	}{
		{"staged", staged, "the next key of tunnel fra1 is staged: NEW=\n" + waits},
		{"staged before", again, "the next key of tunnel fra1 was staged before: NEW=\n" + waits},
		{"wireguard", wg, `tunnel fra1 uses its new key: NEW=
taken by 2 peers: a b
away, and not asked: c. Those that do not have the new key cannot come back until they do
the old private key is in /k/fra1.key.old; when every peer is back: sluice key rotate fra1 --forget
next, at the other ends: take OLD= out of public_keys, and apply
`},
		{"forgotten", forgotten, "the old key of tunnel fra1 is removed: /k/fra1.key.old\n"},
		{"static", api.Rotated{Tunnel: "muc1", Type: "ipsec", Backend: "static", Peers: []api.RotatedPeer{{Name: "a", InTouch: true, OldEpoch: 7, Epoch: 8}, {Name: "b"}}},
			`tunnel muc1 sends with new keys:
  a: epoch 8, before 7
  b: not set up, so nothing was changed; see: sluice show tunnels muc1
the other ends follow by themselves; run the same there for the other direction
`},
		{"ike", api.Rotated{Tunnel: "par1", Type: "ipsec", Backend: "ike", Peers: []api.RotatedPeer{{Name: "a", InTouch: true}, {Name: "b"}}},
			`tunnel par1: charon negotiates new keys with a
not up, so they get new keys when they are: b
nothing is to be done at the other ends; see: sluice show tunnels par1
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := daemonOf(t, &box{rotated: c.rotated})
			words := []string{"key", "rotate", c.rotated.Tunnel}
			if c.rotated.Staged {
				words = append(words, "--stage")
			}
			if c.rotated.Forgotten {
				words = append(words, "--forget")
			}
			sluice(t, words...).is(t, done(c.want))
			if got, want := strings.Join(b.asked, "\n"), "rotate {Tunnel:"+c.rotated.Tunnel+" Stage:"; !strings.HasPrefix(got, want) || strings.Contains(got, " Stage:true") != c.rotated.Staged || strings.Contains(got, " Forget:true") != c.rotated.Forgotten {
				t.Errorf("the daemon was asked %q", got)
			}
			js := sluice(t, append(words, "-o", "json")...)
			var printed api.Rotated
			if err := json.Unmarshal([]byte(js.out), &printed); err != nil || printed.Tunnel != c.rotated.Tunnel || len(printed.Peers) != len(c.rotated.Peers) {
				t.Errorf("-o json: %+v (%v)", js, err)
			}
		})
	}
	refused := &api.Failure{Message: "new key of tunnel fra1: peers did not take the new key: b", Refused: true}
	daemonOf(t, &box{fail: refused})
	sluice(t, "key", "rotate", "fra1").is(t, outcome{exitNo, "", "sluice: " + refused.Message + "\n"})
}

func TestAMasterKeyIsMadeOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys", "muc1.master")
	sluice(t, "key", "master", file).is(t, done(file+"\n"))
	sluice(t, "key", "master", file).is(t, outcome{exitNo, "", "sluice: key file exists already and is never overwritten: " + file + "\n"})
}

func TestAKeyThatIsMadeInTheNodesOwnDirectoryClosesIt(t *testing.T) {
	state := t.TempDir()
	dir := filepath.Join(state, "keys")
	open := func() {
		t.Helper()
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"psk", "master", "gen"} {
		open()
		file := filepath.Join(dir, verb)
		got := sluice(t, "--state-dir", state, "key", verb, file)
		if want := "others could look into " + dir + " (mode 0755): its mode is 0700 again\n"; got.code != exitDone || got.err != want {
			t.Errorf("%s: %+v", verb, got)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", verb, info.Mode(), err)
		}
		open()
		elsewhere := sluice(t, "--state-dir", t.TempDir(), "key", verb, file+"-2")
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 || elsewhere.err != "" {
			t.Errorf("%s in a directory of somebody's choosing: %v, %v, %+v", verb, info.Mode(), err, elsewhere)
		}
	}
}
