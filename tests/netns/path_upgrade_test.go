package netns

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/api"
)

// objectFiles are the compiled BPF objects that a binary embeds.
var objectFiles = []string{"xdp/ingress_bpfel.o", "xdp/root_bpfel.o", "tc/tc_bpfel.o", "tc/root_bpfel.o"}

// buildNext builds the binary of a next version: it says so, and its objects are others, if only by what follows the ELF file, so
// that roots and generations of the old one are none of its own.
func buildNext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	root, replace := strings.TrimSpace(string(out)), map[string]string{}
	for i, name := range objectFiles {
		object, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(other, append(object, "the next version"...), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, name)] = other
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(dir, "sluice")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"),
		"-ldflags", "-X main.version=next", "-o", next, "sluice/cmd/sluice")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the next version: %v\n%s", err, said)
	}
	return next
}

// appliesInARow changes the file back and forth: each is another generation of every hook.
func (p *pathSite) appliesInARow() {
	p.t.Helper()
	const before = "      - {name: web, to: [web-1, web-2]"
	for i := range 6 {
		extra := fmt.Sprintf("      - {name: extra, from: [192.0.2.%d], to: [web-2], action: drop}\n", i)
		file := p.file
		p.edit(before, extra+before)
		p.apply()
		p.write(file)
		p.apply()
	}
}

// upgrades exchanges the running binary under load: it ends and the next version starts, which has roots and generations of
// its own.
func (p *pathSite) upgrades(next string, l *load) {
	p.t.Helper()
	before, version := p.status(), p.links()
	p.terminate()
	l.goesOn()
	if err := p.Gateway.StartDaemonOf(next); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, func() error {
		select {
		case <-p.Gateway.Daemon().Done():
			p.t.Fatal("the next version has ended")
		default:
		}
		s, err := api.Show[api.Status](p.t.Context(), p.api, "status")
		if err == nil && !s.Engine.Applied {
			err = fmt.Errorf("not applied: %s", s.Engine.LastError)
		}
		return err
	})
	after := p.status()
	if after.XDPGeneration == before.XDPGeneration || after.TCGeneration == before.TCGeneration {
		p.t.Errorf("the generations are still those of the former version: %s, %s", after.XDPGeneration, after.TCGeneration)
	}
	if now := p.links(); now == version {
		p.t.Errorf("the roots are still those of the former version:\n%s", now)
	}
	if r := p.sluice("show", "status"); !strings.Contains(r.out, "next") {
		p.t.Logf("show status of the next version: %s", r.out)
	}
}

// links are the pinned attachments and the programs behind them.
func (p *pathSite) links() string {
	p.t.Helper()
	var out strings.Builder
	for line := range strings.Lines(p.pins()) {
		if strings.Contains(line, "/links/") {
			out.WriteString(line)
		}
	}
	return out.String()
}
