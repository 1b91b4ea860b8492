//go:build site

package vm

import (
	"flag"
	"maps"
	"path/filepath"
	"testing"
	"time"
)

// TestSite is about the whole daemon: its file, its command, and tunnels of the kernel's between two of them. It takes longer than
// everything else of this package together, most of it the verifier's for two daemons in an emulated machine: run it by
// `make test-site`.
func TestSite(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sluice := filepath.Join(dir, "sluice")
	if err := goTool(t.Context(), root, "build", "-o", sluice, "sluice/cmd/sluice"); err != nil {
		t.Fatal(err)
	}
	files, err := Programs(t.Context(), "/usr/sbin/ip")
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(files, charonFiles(t))
	files["/bin/sluice"] = sluice
	Run(t, dir, Guest{
		Package: "sluice/tests/vm/site", Files: files, Timeout: 2 * time.Hour, Memory: 1536,
		Modules: append([]string{"wireguard", "sch_plug"}, espModules...),
		Devices: steady,
		Args:    []string{"-test.run=" + flag.Lookup("test.run").Value.String()}, // which may name steps
	})
}
