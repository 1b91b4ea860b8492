package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/api"
	"sluice/control/engine"
)

// unattended is the daemon as the node image starts it.
func (s *site) unattended() string {
	s.t.Helper()
	script := filepath.Join(s.Dir, "unattended")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nexec %s \"$@\" --maintenance\n", binary()), 0o700); err != nil {
		s.t.Fatal(err)
	}
	return script
}

// maintained starts the daemon, waits for the maintenance state and returns what it says.
func (s *site) maintained(script string) string {
	s.t.Helper()
	if err := s.Gateway.StartDaemonOf(script); err != nil {
		s.t.Fatal(err)
	}
	var said string
	eventually(s.t, func() error {
		st, err := api.Show[api.Status](s.t.Context(), s.api, "status")
		if err != nil {
			return err
		}
		for _, c := range st.Engine.Conditions {
			if c.Type == engine.ConditionMaintenance && c.Status == engine.True {
				said = c.Message
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", st.Engine.Conditions)
	})
	return said
}

// TestANodeWithoutAConfigurationForwardsNothingAndWaits: with a bad file and with none, the daemon is there, and an apply ends it.
func TestANodeWithoutAConfigurationForwardsNothingAndWaits(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	script := s.unattended()
	good := s.file
	for _, file := range []string{"nodes: {}\n", ""} {
		if file == "" {
			if err := os.Remove(s.Gateway.File); err != nil {
				t.Fatal(err)
			}
		} else {
			s.write(file)
		}
		s.must(s.Gateway.Namespace, "sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
		said := s.maintained(script)
		if file != "" && !strings.Contains(said, "did you mean node?") || !strings.Contains(said, "only the console leads here") {
			t.Errorf("it says %q", said)
		}
		if f := s.must(s.Gateway.Namespace, "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding"); strings.Join(strings.Fields(f), " ") != "0 0" {
			t.Errorf("forwarding is %q", f)
		}
		s.terminate()
	}
	s.maintained(script)
	if shown := s.sluice("show", "interfaces").out; !strings.Contains(shown, "eth0") {
		t.Errorf("without a file the names of interfaces are not to be seen:\n%s", shown)
	}
	s.write(good)
	if out := s.sluice("apply", "-c", s.Gateway.File); out.code != 0 {
		t.Fatalf("apply: %+v", out)
	}
	if c := s.maintenance(); c != nil {
		t.Errorf("behind an apply: %+v", c)
	}
}

// TestAFirstRevisionThatGoesBackLeavesTheMaintenanceState, and what it forwarded is not forwarded any more.
func TestAFirstRevisionThatGoesBackLeavesTheMaintenanceState(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	script, good := s.unattended(), s.file
	if err := os.Remove(s.Gateway.File); err != nil {
		t.Fatal(err)
	}
	s.maintained(script)
	s.write(good)
	if out := s.sluice("apply", "-c", s.Gateway.File, "--confirm", "1h"); out.code != 0 {
		t.Fatalf("apply: %+v", out)
	}
	if c := s.maintenance(); c != nil {
		t.Errorf("while it is on trial: %+v", c)
	}
	if out := s.sluice("rollback"); out.code != 0 {
		t.Fatalf("rollback: %+v", out)
	}
	if c := s.maintenance(); c == nil || !strings.Contains(c.Message, "revision 1 went back") {
		t.Errorf("behind it: %+v", c)
	}
	if f := s.must(s.Gateway.Namespace, "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding"); strings.Join(strings.Fields(f), " ") != "0 0" {
		t.Errorf("forwarding is %q", f)
	}
}

func (s *site) maintenance() *engine.Condition {
	s.t.Helper()
	return s.condition(engine.ConditionMaintenance)
}

// condition is one of the status; nil: there is none.
func (s *site) condition(kind string) *engine.Condition {
	s.t.Helper()
	for _, c := range s.status().Engine.Conditions {
		if c.Type == kind {
			return &c
		}
	}
	return nil
}

// TestANodeWhoseRevisionsAreDamagedIsReachedByItsLastManagementAddresses: a boot, with nothing that was confirmed to be read.
func TestANodeWhoseRevisionsAreDamagedIsReachedByItsLastManagementAddresses(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	script := s.unattended()
	if err := s.Gateway.StartDaemonOf(script); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Gateway.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(s.Gateway.StateDir, "management.json")
	var text []byte
	eventually(t, func() (err error) {
		text, err = os.ReadFile(kept)
		return err
	})
	address := keptAddress(t, string(text))
	s.terminate()
	if err := errors.Join(os.RemoveAll(s.Gateway.BPFDir), os.RemoveAll(filepath.Join(s.Gateway.StateDir, "host.json")),
		os.WriteFile(filepath.Join(s.Gateway.StateDir, "revisions", "1", "meta.json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	link := strings.Fields(s.must(s.Gateway.Namespace, "ip -o addr show to "+address))[1]
	s.must(s.Gateway.Namespace, "ip addr del "+address+" dev "+link)
	s.must(s.Gateway.Namespace, "ip link set down dev "+link)
	s.write("nodes: {}\n")

	if said := s.maintained(script); !strings.Contains(said, address+" on "+link) {
		t.Errorf("it says %q", said)
	}
	if now := s.must(s.Gateway.Namespace, "ip -o addr show up to "+address); !strings.Contains(now, link) {
		t.Errorf("the address: %q", now)
	}
}

// keptAddress is one of those that a management.json holds.
func keptAddress(t *testing.T, text string) string {
	t.Helper()
	_, rest, _ := strings.Cut(text, `"Addresses"`)
	_, rest, found := strings.Cut(rest, `"Prefix": "`)
	address, _, ended := strings.Cut(rest, `"`)
	if !found || !ended {
		t.Fatalf("no address in\n%s", text)
	}
	return address
}
