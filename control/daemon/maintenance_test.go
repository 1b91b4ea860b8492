package daemon

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/host"
	"sluice/control/node"
)

// TestTheMaintenanceStateNamesAWayThatIsThere: apply where somebody can log in, a stick on a node image, and neither before the data is open.
func TestTheMaintenanceStateNamesAWayThatIsThere(t *testing.T) {
	dir := t.TempDir()
	d := &Daemon{opts: Options{File: filepath.Join(dir, "sluice.yaml"), StateDir: dir}}
	reached := host.State{Addresses: []host.Address{{Link: "eth0", Prefix: netip.MustParsePrefix("198.18.0.2/24")}}}
	ssh, console := node.State{SSH: &node.SSH{Port: 22}}, node.State{Console: &node.Console{HashFile: "x"}}
	says := func(what string, m management, want ...string) {
		t.Helper()
		text := d.wayOut(m)
		for _, word := range []string{"sluice apply", "stick", "log in", "data partition"} {
			if wanted := strings.Contains(strings.Join(want, " "), word); strings.Contains(text, word) != wanted {
				t.Errorf("%s: %q", what, text)
			}
		}
	}
	says("no image", management{}, "sluice apply")
	d.opts.Image = "1.3"
	says("nobody logs in", management{Host: reached}, "stick")
	says("SSH without an address", management{Node: ssh}, "stick")
	says("SSH", management{Host: reached, Node: ssh}, "log in", "sluice apply", "stick")
	says("the console", management{Node: console}, "log in", "sluice apply", "stick")
	writeTree(t, dir, map[string]string{"source.json": `{"source": "none", "held": true, "problems": ["the TPM does not open it"]}`})
	says("without its data", management{}, "data partition")
}
