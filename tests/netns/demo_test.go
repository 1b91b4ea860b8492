package netns

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demoLines are the claims of the demo, in order.
var demoLines = strings.Fields("daemons bgp http flood egress own tunnel explain restart client")

func TestDemo(t *testing.T) {
	binary := binary()
	t.Run("EveryLineHoldsAndNothingIsLeft", func(t *testing.T) { demoHolds(t, binary) })
	t.Run("CtrlCTakesTheSiteDown", func(t *testing.T) { demoInterrupted(t, binary) })
	t.Run("DownRemovesWhatAKilledDemoLeft", func(t *testing.T) { demoKilled(t, binary) })
	t.Run("UpStaysUntilDown", func(t *testing.T) { labUpAndDown(t, binary) })
}

func demoHolds(t *testing.T, binary string) {
	out, err := exec.Command(binary, "lab", "run").CombinedOutput()
	if err != nil {
		t.Errorf("lab run: %v", err)
	}
	var ticked []string
	for line := range strings.Lines(string(out)) {
		if mark, rest, _ := strings.Cut(line, " "); mark == "✓" {
			ticked = append(ticked, strings.Fields(rest)[0])
		} else if mark == "✗" {
			t.Error(strings.TrimSpace(line))
		}
	}
	if got, want := strings.Join(ticked, " "), strings.Join(demoLines, " "); got != want {
		t.Errorf("ticked: %s\nwant:   %s", got, want)
	}
	wantNothingLeft(t, labID(t, string(out)))
	if t.Failed() {
		t.Logf("lab run said:\n%s", out)
	}
}

// demoInterrupted presses Ctrl-C while the daemons are up and the client asks.
func demoInterrupted(t *testing.T, binary string) {
	demo, id := startDemo(t, binary)
	if err := demo.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(&demo.said, demo.out)
	err := demo.cmd.Wait()
	if demo.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(demo.errors.String(), "interrupted") {
		t.Errorf("ended with %v and said %q, want exit code 1 and a word of the interruption", err, demo.errors.String())
	}
	wantNothingLeft(t, id)
}

// demoKilled ends the demo as nothing can clean up after.
func demoKilled(t *testing.T, binary string) {
	demo, id := startDemo(t, binary)
	if said := run(t, binary, "lab", "down", id); !strings.Contains(said, "is at work") {
		t.Errorf("lab down said %q of a demo that runs", said)
	}
	if err := demo.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = demo.cmd.Wait()
	if said := run(t, binary, "lab", "down", id); said != "lab "+id+" is gone\n" {
		t.Errorf("lab down said %q", said)
	}
	wantNothingLeft(t, id)
}

func labUpAndDown(t *testing.T, binary string) {
	said := run(t, binary, "lab", "up")
	id := labID(t, said)
	defer func() { _, _ = exec.Command(binary, "lab", "down", id).CombinedOutput() }()
	socket := regexp.MustCompile(`SLUICE_SOCKET=(\S+)`).FindStringSubmatch(said)
	if socket == nil {
		t.Fatalf("lab up names no socket:\n%s", said)
	}
	for noun, want := range map[string]string{"bgp": "established", "tunnels": "fra1", "workloads": "web-2", "drops": "REASON"} {
		if text := run(t, binary, "show", noun, "--socket", socket[1]); !strings.Contains(text, want) {
			t.Errorf("show %s does not say %q:\n%s", noun, want, text)
		}
	}
	if said := run(t, binary, "lab", "down", id); said != "lab "+id+" is gone\n" {
		t.Errorf("lab down said %q", said)
	}
	wantNothingLeft(t, id)
}

// runningDemo is a demo that a test ends.
type runningDemo struct {
	cmd          *exec.Cmd
	out          io.Reader
	said, errors bytes.Buffer
}

// startDemo starts one and returns when its client is answered.
func startDemo(t *testing.T, binary string) (*runningDemo, string) {
	t.Helper()
	d := &runningDemo{cmd: exec.Command(binary, "lab", "run")}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d.cmd.Stderr = &d.errors
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Signal(os.Interrupt)
			_ = d.cmd.Wait()
		}
	})
	lines := bufio.NewScanner(out)
	d.out = out
	for lines.Scan() {
		d.said.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "✓ http") {
			return d, labID(t, d.said.String())
		}
	}
	t.Fatalf("the demo ended before its client was answered:\n%s%s", &d.said, &d.errors)
	return nil, ""
}

func run(t *testing.T, binary string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("sluice %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func labID(t *testing.T, said string) string {
	t.Helper()
	found := regexp.MustCompile(`^lab ([0-9a-f]+)[ :]`).FindStringSubmatch(said)
	if found == nil {
		t.Fatalf("the lab does not say its id:\n%s", said)
	}
	return found[1]
}

// wantNothingLeft looks for namespaces, pins, files and processes of a lab.
func wantNothingLeft(t *testing.T, id string) {
	t.Helper()
	for _, pattern := range []string{"/run/netns/sluice-lab-" + id + "*", "/sys/fs/bpf/sluice-lab-" + id + "*", "/run/sluice-lab/" + id + "*"} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v (%v)", left, err)
		}
	}
	within(t, 10*time.Second, func() (left error) { // one that was killed may take a while to end
		commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, path := range commands {
			// One that ended meanwhile has no command line.
			if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte("/run/sluice-lab/"+id)) {
				left = errors.Join(left, fmt.Errorf("left behind: process %s: %s", filepath.Dir(path), bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
			}
		}
		return left
	})
}
