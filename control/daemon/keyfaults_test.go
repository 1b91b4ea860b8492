package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/host"
	"sluice/crypto/keys"
)

// A file may be checked on another machine than it is for: there its keys are a warning. The doctor judges this machine.
func TestKeyFilesThatApplyWouldRefuseAreToldOf(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	own, err := keys.Generate(at("good.key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Generate(at("open.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(at("open.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("short.key"), []byte("c2hvcnQ=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const other = "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8="
	for _, c := range []struct{ name, private, public, psk, want string }{
		{"all is well", "good.key", other, "", ""},
		{"none is there", "none.key", other, "", "tunnels[0].wireguard.private_key_file: key file " + at("none.key") + ": file does not exist; run: sluice key gen " + at("none.key")},
		{"others may read it", "open.key", other, "", "mode 0644; run: chmod 600 " + at("open.key")},
		{"it is short", "short.key", other, "", "the file holds 5 bytes"},
		{"one's own key is the peer's", "good.key", own, "", "tunnels[0].peers[0].public_keys[0]: this is the node's own key; give the peer's"},
		{"no preshared key", "good.key", other, "psk", "tunnels[0].peers[0].preshared_key_file: key file " + at("psk") + ": file does not exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			psk := ""
			if c.psk != "" {
				psk = ", preshared_key_file: " + at(c.psk)
			}
			file := at("edge.yaml")
			text := fmt.Sprintf("interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]\nmanagement: {accept: [{protocol: tcp, ports: [22]}]}\n"+
				"tunnels: [{name: fra1, type: wireguard, local: {address: 198.18.0.2, port: 51820}, wireguard: {private_key_file: %s}, peers: [{name: p, endpoints: [\"198.51.100.7:51820\"], "+
				"public_keys: [%s], prefixes: [10.20.0.0/16]%s}]}]\n", at(c.private), c.public, psk)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := Check(t.Context(), file, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			var told []string
			for _, w := range r.Warnings {
				if strings.HasPrefix(w, "on this machine apply would refuse ") {
					told = append(told, w)
				}
			}
			if text := strings.Join(told, "\n"); (text == "") != (c.want == "") || !strings.Contains(text, c.want) || strings.Contains(text, "\n") || text != "" && !strings.Contains(text, at("edge.yaml")+":3:") {
				t.Errorf("check says %q, want %q", text, c.want)
			}
			cfg, live, err := DoctorOptions{File: file, FileFirst: true}.config(t.Context())
			if err != nil || live {
				t.Fatalf("live %v, %v", live, err)
			}
			want := host.StatusOK
			if c.want != "" {
				want = host.StatusMissing
			}
			if f := keyFinding(cfg); f.Status != want || !strings.Contains(f.Detail, c.want) {
				t.Errorf("the doctor says %+v, want %s with %q", f, want, c.want)
			}
		})
	}
}
