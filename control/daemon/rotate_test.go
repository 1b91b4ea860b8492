package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/control/config"
)

func TestTunnelsThatShareAKeyFileAreNamed(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "lon.key"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink("lon.key", link)); err != nil {
		t.Fatal(err)
	}
	conf := []config.Tunnel{
		{Name: "ams1", Type: config.TypeWireGuard, PrivateKeyFile: "/etc/sluice/wg.key"},
		{Name: "esp1", Type: config.TypeIPsec},
		{Name: "esp2", Type: config.TypeIPsec},
		{Name: "fra1", Type: config.TypeWireGuard, PrivateKeyFile: "/etc/sluice/../sluice/wg.key"},
		{Name: "lon1", Type: config.TypeWireGuard, PrivateKeyFile: file},
		{Name: "lon2", Type: config.TypeWireGuard, PrivateKeyFile: link},
		{Name: "muc1", Type: config.TypeWireGuard, PrivateKeyFile: "/etc/sluice/muc.key"},
		{Name: "par1", Type: config.TypeWireGuard, PrivateKeyFile: "/etc/sluice/wg.key"},
	}
	for name, want := range map[string][]string{"ams1": {"fra1", "par1"}, "fra1": {"ams1", "par1"}, "lon1": {"lon2"}, "lon2": {"lon1"}, "muc1": nil} {
		t.Run(name, func(t *testing.T) {
			i := slices.IndexFunc(conf, func(c config.Tunnel) bool { return c.Name == name })
			if got := sharers(conf, conf[i]); !slices.Equal(got, want) {
				t.Errorf("shares its file with %q, want %q", got, want)
			}
		})
	}
}

func TestAnOldKeyIsForgottenOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k")
	for _, name := range []string{file, file + ".old", file + ".next"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fra1 := config.Tunnel{Name: "fra1", Type: config.TypeWireGuard, PrivateKeyFile: file}
	out, err := forgetKey(fra1)
	if err != nil || !out.Forgotten || out.OldFile != file+".old" {
		t.Errorf("%+v, %v", out, err)
	}
	left, err := filepath.Glob(file + "*")
	if err != nil || !slices.Equal(left, []string{file, file + ".next"}) {
		t.Errorf("left are %q, %v", left, err)
	}
	if _, err := forgetKey(fra1); err == nil || !strings.Contains(err.Error(), "tunnel fra1 keeps no old key: there is no "+file+".old") {
		t.Errorf("again: %v", err)
	}
	if _, err := forgetKey(config.Tunnel{Name: "ams1", Type: config.TypeIPsec}); err == nil || !strings.Contains(err.Error(), "ams1 is of type ipsec") {
		t.Errorf("of IPsec: %v", err)
	}
}
