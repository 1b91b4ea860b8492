package main

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"sluice/control/daemon"
)

// setting runs a command that asks nobody and returns what became of a setting.
func setting(t *testing.T, key string, args ...string) string {
	t.Helper()
	c := newCLI(io.Discard, io.Discard)
	if code := c.run(t.Context(), args); code != exitDone {
		t.Fatalf("sluice %q: exit code %d", args, code)
	}
	return c.settings.GetString(key)
}

func TestSettings(t *testing.T) {
	defaults := map[string]string{
		"node.state_dir": "/var/lib/sluice", "node.bpf_dir": "/sys/fs/bpf/sluice", "node.socket": "/run/sluice/sluice.sock", "log_level": "info",
	}
	for _, s := range settings {
		t.Run(s.flag, func(t *testing.T) {
			none := write(t, "none.yaml", minimal)
			if got := setting(t, s.key, "check", "-c", none); got != defaults[s.key] {
				t.Errorf("by default %q, want %q", got, defaults[s.key])
			}
			file := none
			if s.key != "log_level" { // not for the file to say
				name := s.key[len("node."):]
				file = write(t, "some.yaml", minimal+"node: {"+name+": /from/file}\n")
				if got := setting(t, s.key, "check", "-c", file); got != "/from/file" {
					t.Errorf("the file's is %q", got)
				}
			}
			t.Setenv(map[string]string{
				"state-dir": "SLUICE_STATE_DIR", "bpf-dir": "SLUICE_BPF_DIR", "socket": "SLUICE_SOCKET", "log-level": "SLUICE_LOG_LEVEL",
			}[s.flag], "/from/env")
			if got := setting(t, s.key, "check", "-c", file); got != "/from/env" {
				t.Errorf("the environment's is %q", got)
			}
			if got := setting(t, s.key, "check", "-c", file, "--"+s.flag, "/from/flag"); got != "/from/flag" {
				t.Errorf("the flag's is %q", got)
			}
			if got := setting(t, s.key, "check", "-c", file, "--"+s.flag, s.value); got != s.value {
				t.Errorf("the flag's is %q where it says the default", got)
			}
		})
	}
}

// TestTheEnvironmentNeverAltersPolicy: only the process settings are looked up there.
func TestTheEnvironmentNeverAltersPolicy(t *testing.T) {
	file := write(t, "e.yaml", minimal)
	before := sluice(t, "check", "-c", file, "-o", "json")
	for _, name := range []string{"SLUICE_POLICY_INGRESS_DEFAULT", "SLUICE_NODE_NAME", "SLUICE_CONFIG", "SLUICE_OUTPUT", "SLUICE_CONNTRACK_MAX_ENTRIES"} {
		t.Setenv(name, "drop")
	}
	if after := sluice(t, "check", "-c", file, "-o", "json"); after != before {
		t.Errorf("got %+v, before %+v", after, before)
	}
}

// TestTheSocketOfTheFileIsAsked: a box whose file names another socket needs no flag.
func TestTheSocketOfTheFileIsAsked(t *testing.T) {
	file := write(t, "e.yaml", minimal+"node: {socket: /nowhere/s}\n")
	sluice(t, "plan", "-c", file).is(t, outcome{exitUnreachable, "",
		"sluice: could not reach the daemon on /nowhere/s: it is not running, or has another --socket\n"})
}

// TestTheSocketOfALongFileIsAsked: it may stand before and behind lists that are not read for it.
func TestTheSocketOfALongFileIsAsked(t *testing.T) {
	const node = "node: {socket: /nowhere/s}\n"
	for _, file := range []string{node + longFile(t), longFile(t) + node} {
		sluice(t, "plan", "-c", write(t, "e.yaml", file)).is(t, outcome{exitUnreachable, "",
			"sluice: could not reach the daemon on /nowhere/s: it is not running, or has another --socket\n"})
	}
}

// longFile has a list of rules that is cut out of what settings are looked for in.
func longFile(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(minimal + "policy:\n  ingress:\n    default: accept\n    rules:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "      - {name: rule-%d, from: [192.0.2.%d], protocol: tcp, ports: [%d], action: drop}\n", i, i%256, 1+i)
	}
	if short := daemon.Outline([]byte(b.String())); len(short) > b.Len()/2 {
		t.Fatalf("of %d bytes %d are left", b.Len(), len(short))
	}
	return b.String()
}
