package netns

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sluice/control/api"
	"sluice/xdp/pin"
)

// objectFiles are the compiled BPF objects that a binary embeds.
var objectFiles = []string{"xdp/ingress_bpfel.o", "xdp/root_bpfel.o", "tc/tc_bpfel.o", "tc/root_bpfel.o"}

// buildNext builds the binary of a next version: its objects are others, if only by what follows the ELF file, so that roots and generations
// of the old one are none of its own.
func buildNext(t *testing.T) string {
	t.Helper()
	other := map[string]func(string) string{}
	for _, name := range objectFiles {
		other[name] = func(object string) string { return object + "the next version" }
	}
	return buildOther(t, other)
}

// buildOther builds a binary of another version, which says so: next. Of the files of this tree some are others.
func buildOther(t *testing.T, other map[string]func(string) string) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	root, replace := strings.TrimSpace(string(out)), map[string]string{}
	for name, change := range other {
		before, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		after := change(string(before))
		if after == string(before) {
			t.Fatalf("%s of the next version is the same", name)
		}
		file := filepath.Join(dir, fmt.Sprint(len(replace)))
		if err := os.WriteFile(file, []byte(after), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, name)] = file
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
	before, roots := p.status(), p.links()
	p.terminate()
	l.goesOn()
	p.startNext(next)
	after := p.status()
	if after.XDPGeneration == before.XDPGeneration || after.TCGeneration == before.TCGeneration {
		p.t.Errorf("the generations are still those of the former version: %s, %s", after.XDPGeneration, after.TCGeneration)
	}
	p.exchanged(roots, p.links())
	if r := p.sluice("show", "status"); !strings.Contains(r.out, "next") {
		p.t.Logf("show status of the next version: %s", r.out)
	}
}

// startNext starts a daemon of another binary, and waits until it has applied.
func (s *site) startNext(next string) {
	s.t.Helper()
	if err := s.Gateway.StartDaemonOf(next); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, func() error {
		select {
		case <-s.Gateway.Daemon().Done():
			s.t.Fatal("the next version has ended")
		default:
		}
		status, err := api.Show[api.Status](s.t.Context(), s.api, "status")
		if err == nil && !status.Engine.Applied {
			err = fmt.Errorf("not applied: %s", status.Engine.LastError)
		}
		return err
	})
}

// root is what a pinned link holds on its hook.
type root struct {
	link    link.ID // another one is another place among the programs of its hook, and a moment without any
	program ebpf.ProgramID
	name    string // of the program: by the object that it is of
}

// exchanged fails unless each link is the one of before and holds a root of another version.
func (p *pathSite) exchanged(before, after map[pin.Hook]root) {
	p.t.Helper()
	if len(before) == 0 || len(after) != len(before) {
		p.t.Errorf("%d links, before %d", len(after), len(before))
	}
	for hook, was := range before {
		is := after[hook]
		if is.link != was.link || is.program == was.program || is.name == was.name || !strings.HasPrefix(is.name, "root_") {
			p.t.Errorf("%s: %+v, before the exchange of versions %+v", hook, is, was)
		}
	}
}

// links are the pinned attachments and the programs behind them.
func (p *pathSite) links() map[pin.Hook]root {
	p.t.Helper()
	dir := pin.At(p.Gateway.BPFDir)
	hooks, err := dir.Hooks("")
	if err != nil {
		p.t.Fatal(err)
	}
	out := map[pin.Hook]root{}
	for _, hook := range hooks {
		if out[hook], err = rootOf(dir, hook); err != nil {
			p.t.Fatal(err)
		}
	}
	return out
}

func rootOf(dir *pin.Dir, hook pin.Hook) (root, error) {
	l, err := dir.Link(hook)
	if err != nil {
		return root{}, err
	}
	defer l.Close()
	on, err := l.Info()
	if err != nil {
		return root{}, err
	}
	program, err := ebpf.NewProgramFromID(on.Program)
	if err != nil {
		return root{}, err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return root{}, err
	}
	return root{on.ID, on.Program, info.Name}, nil
}
