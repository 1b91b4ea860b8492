package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func (s *site) daemonLog() string {
	s.t.Helper()
	log, err := os.ReadFile(s.Gateway.Daemon().Log)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(log)
}

// wants fails unless the command ended so, saying all of these on standard error.
func (s *site) wants(r said, code int, says ...string) {
	s.t.Helper()
	if r.code != code {
		s.t.Errorf("exit code %d, want %d: %s%s", r.code, code, r.out, r.err)
	}
	for _, text := range says {
		if !strings.Contains(r.err, text) {
			s.t.Errorf("it does not say %q: %s", text, r.err)
		}
	}
}

// bad are files with errors; each must be told with its place, by check, plan, apply and the first start alike.
var bad = map[string]struct {
	change []string
	says   []string
}{
	"no YAML":           {[]string{"node: {name: e2e-gateway}", "node: {name: e2e-gateway"}, []string{"gateway.yaml:"}},
	"an unknown key":    {[]string{"\nbgp:\n", "\nbpg: {}\n\nbgp:\n"}, []string{"gateway.yaml:40:1", "bpg", "unknown"}},
	"a name too long":   {[]string{"interface: web-1", "interface: web-1-of-a-long-name"}, []string{"web-1-of-a-long-name", "15"}},
	"names that repeat": {[]string{"- name: web-2", "- name: web-1"}, []string{"workloads[1].name", "web-1", "line 29"}},
	"no failsafe": {
		[]string{"management:\n  accept:\n    - {name: ssh, protocol: tcp, ports: [22], from: [198.18.0.0/30, \"2001:db8::/64\"]}\n", ""},
		[]string{"management"},
	},
	"three at once": {
		[]string{"role: uplink", "role: upstream", "ports: [80, 443]", "ports: [443-80]", "asn: 65010", "asn: many"},
		[]string{"upstream", "443-80", "many"},
	},
	"a dangling name": {
		[]string{"{name: no-attackers, from: [attackers]", "{name: no-attackers, from: [atackers]"}, []string{"atackers", "attackers"},
	},
	"addresses overlap":  {[]string{"[203.0.113.11, ", "[203.0.113.10, "}, []string{"203.0.113.10"}},
	"a missing set file": {[]string{"prefixes: [192.0.2.0/24, \"2001:db8:a::/48\"]", "files: [nowhere.netset]"}, []string{"nowhere.netset"}},
}

func TestABadFileIsToldWithItsPlaceAndChangesNothing(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	before := s.settled()
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			at := *s
			at.t = t
			text := edited(t, gatewayFile, c.change...)
			at.write(text)
			for _, verb := range []string{"check", "plan", "diff", "apply"} {
				at.wants(at.sluice(verb, "-c", s.Gateway.File), 1, c.says...)
			}
		})
	}
	s.same("bad files", before, s.settled())
	s.wantHistory("1 confirmed")
	s.mustBe(s.open)
}

func TestAFirstStartWithABadFileTellsWhyAndChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.settled()
	for _, name := range []string{"three at once", "a dangling name"} {
		s.write(edited(t, gatewayFile, bad[name].change...))
		if err := s.Gateway.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		s.ends(1)
		for _, want := range bad[name].says {
			if log := s.daemonLog(); !strings.Contains(log, want) {
				t.Errorf("the daemon does not say %q:\n%s", want, log)
			}
		}
	}
	s.same("bad files", before, s.settled())
}

func TestWrongUsageEndsWithTwoAndNoDaemonWithThree(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, words := range []string{
		"frobnicate", "show nothing", "show status more", "apply --confirm 0s", "apply --no-such-flag", "rollback 1 2", "rollback x",
		"explain", "show config x", "-o xml show status", "show status --log-level",
	} {
		s.wants(s.in(s.Gateway.Namespace, binary(), strings.Fields(words)...), 2, "sluice: ")
	}
	for _, words := range []string{
		"show status", "show drops -o json", "confirm", "rollback", "rollback 1", "history", "down", "explain --in eth0 --packet x", "show config",
		"plan -c " + s.Gateway.File, "apply -c " + s.Gateway.File,
	} {
		s.wants(s.sluice(strings.Fields(words)...), 3, "could not reach the daemon", s.Gateway.Socket)
	}
	for _, words := range []string{"version", "check -c " + s.Gateway.File, "--help"} {
		s.wants(s.sluice(strings.Fields(words)...), 0)
	}
}

func TestWhoIsNotRootIsToldSo(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte(gatewayFile), 0o644); err != nil {
		t.Fatal(err)
	}
	nobody := func(args ...string) said {
		return s.in(s.Gateway.Namespace, "setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", binary()}, args...)...)
	}
	s.wants(nobody("run", "-c", file, "--state-dir", filepath.Join(t.TempDir(), "state")), 1, "root", "sudo")
	s.wants(nobody("show", "status", "--socket", s.Gateway.Socket), 3, "only root may open it", "sudo")
	if info, err := os.Stat(s.Gateway.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", info.Mode(), err)
	}
}

func TestASecondDaemonOnTheStateDirectoryIsToldWhoHasIt(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	before := s.settled()
	second := s.in(s.Gateway.Namespace, binary(), "run", "-c", s.Gateway.File, "--state-dir", s.Gateway.StateDir,
		"--bpf-dir", s.Gateway.BPFDir+"-2", "--socket", s.Gateway.Socket+"2")
	s.wants(second, 1, fmt.Sprintf("pid %d", s.Gateway.Daemon().PID()), s.Gateway.StateDir)
	s.same("a second daemon", before, s.settled())
	s.wants(s.sluice("show", "status"), 0)
}

func TestABusyBGPPortIsTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.listen(":179")
	before := s.settled()
	if err := s.Gateway.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	s.ends(1)
	for _, want := range []string{"TCP port 179 is in use", "stop the other BGP daemon"} {
		if log := s.daemonLog(); !strings.Contains(log, want) {
			t.Errorf("the daemon does not say %q:\n%s", want, log)
		}
	}
	s.same("a failed start", before, s.settled())
}
