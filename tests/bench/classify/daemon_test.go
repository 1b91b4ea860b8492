package classify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/control/daemon"
)

// gateway is a real daemon in the lab, with two workloads, that applies a file of any size.
type gateway struct {
	*lab.Site
	process *lab.Process
	file    *file
	read    int // bytes of its log that were looked at
}

const gatewayHead = `interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30, "2001:db8::2/64"]}]
workloads:
  - {name: web-1, interface: web-1, addresses: [203.0.113.10], ingress: {default: drop, rules: [{name: web, protocol: tcp, ports: [80], action: accept}]}}
  - {name: web-2, interface: web-2, addresses: [203.0.113.11], ingress: {default: drop, rules: [{name: web, protocol: tcp, ports: [80], action: accept}]}}
`

func newGateway(b *testing.B, f *file) *gateway {
	b.Helper()
	dir := b.TempDir()
	binary := filepath.Join(dir, "sluice")
	build := exec.CommandContext(b.Context(), "go", "build", "-o", binary, "sluice/cmd/sluice")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if said, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, said)
	}
	site, err := lab.New(b.Context(), lab.Options{Binary: binary, Dir: filepath.Join(dir, "labs"), WithoutToR: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := site.Close(); err != nil {
			b.Error(err)
		}
	})
	_, rest, _ := bytes.Cut(f.text, []byte("\n")) // the line of interfaces
	f.text = append([]byte(gatewayHead), rest...)
	g := &gateway{Site: site, file: f}
	if err := os.WriteFile(site.Gateway.File, []byte(gatewayHead+"policy: {ingress: {default: accept}}\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	n := site.Gateway
	g.process, err = n.Command("gateway", binary, "run", "-c", n.File, "--log-level", "debug",
		"--state-dir", n.StateDir, "--bpf-dir", n.BPFDir, "--socket", n.Socket)
	if err != nil {
		b.Fatal(err)
	}
	g.wait(b)
	return g
}

// wait waits until the first revision, of next to nothing, is applied.
func (g *gateway) wait(b *testing.B) {
	b.Helper()
	client := g.Gateway.API()
	defer client.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		status, err := api.Show[api.Status](b.Context(), client, "status")
		if err == nil && status.Engine.Applied {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(g.process.Log)
			b.Fatalf("the daemon is not ready: %v\n%s", err, log)
		}
	}
}

var took = regexp.MustCompile(`msg=took part="?([^"\n]*?)"? time=(\S+)`)

// apply applies the file as `sluice apply` does, and tells the phases.
func (g *gateway) apply(b *testing.B) string {
	b.Helper()
	set := filepath.Join(filepath.Dir(g.Gateway.File), "block.netset")
	if err := errors.Join(os.WriteFile(g.Gateway.File, g.file.text, 0o600), os.WriteFile(set, g.file.set, 0o600)); err != nil {
		b.Fatal(err)
	}
	pid := g.process.PID()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	client := g.Gateway.API()
	defer client.Close()
	begin := time.Now()
	candidate, _, err := daemon.Collect(g.Gateway.File)
	if err != nil {
		b.Fatal(err)
	}
	loaded := time.Now()
	if _, err := client.Apply(ctx, api.ApplyRequest{Candidate: candidate}); err != nil {
		b.Fatal(err)
	}
	all := time.Since(loaded)
	log, err := os.ReadFile(g.process.Log)
	if err != nil {
		b.Fatal(err)
	}
	var phases []string
	for _, m := range took.FindAllSubmatch(log[g.read:], -1) {
		d, err := time.ParseDuration(string(m[2]))
		if err != nil {
			b.Fatal(err)
		}
		phases = append(phases, fmt.Sprintf("%s %d", m[1], d.Milliseconds()))
	}
	g.read = len(log)
	peak, now := residentOf(b, pid, "VmHWM:"), residentOf(b, pid, "VmRSS:")
	return fmt.Sprintf("client reads %d, daemon %d ms: %s; daemon resident %d MB, at the peak %d", loaded.Sub(begin).Milliseconds(),
		all.Milliseconds(), strings.Join(phases, ", "), now, peak)
}

// residentOf is a line of /proc/PID/status in MB.
func residentOf(b *testing.B, pid int, line string) int {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	var kb int
	_, rest, _ := strings.Cut(string(status), line)
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		b.Fatal(err)
	}
	return kb >> 10
}

// BenchmarkDaemonChange is BenchmarkChange through the daemon, with disk and API: what an operator waits for.
func BenchmarkDaemonChange(b *testing.B) {
	times := 3
	if os.Getenv("BENCH") == "quick" {
		times = 1
	}
	f := newFile(manyPrefixes, manyRules)
	g := newGateway(b, f)
	b.Logf("all of it:    %s", g.apply(b))
	for i := range times {
		f.text = bytes.Replace(f.text, fmt.Appendf(nil, "name: r%d,", 1000+i), fmt.Appendf(nil, "mode: shadow, name: r%d,", 1000+i), 1)
		b.Logf("a rule's mode: %s", g.apply(b))
	}
	for i := range times {
		f.text = fmt.Appendf(f.text, "      - {name: new-%d, from: [10.77.%d.0/24], to: [10.66.0.%d], action: drop}\n", i, i, i)
		b.Logf("a new rule:   %s", g.apply(b))
	}
	for i := range times {
		f.set = fmt.Appendf(f.set, "9.%d.7.7/32\n", i)
		b.Logf("a new prefix: %s", g.apply(b))
	}
	time.Sleep(3 * time.Second) // it gives memory back when it has been quiet for a second
	b.Logf("seconds later: resident %d MB", residentOf(b, g.process.PID(), "VmRSS:"))
}
