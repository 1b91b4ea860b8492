package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/control/engine"
	"sluice/tests/nstest"
)

// stateDir is what status says of the state directory; "": it is sound.
func (s *site) stateDir() (reason, message string) {
	s.t.Helper()
	for _, c := range s.status().Engine.Conditions {
		if c.Type == engine.ConditionStateDir {
			return c.Reason, c.Message
		}
	}
	return "", ""
}

// The machine holds nothing of ours when the daemon starts, as after a boot, and its revision is on a disk that is full.
func TestAFullDiskKeepsNoGatewayFromComingUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	disk := nstest.NewDisk(t, 4096)
	s.Gateway.StateDir = filepath.Join(disk.Dir, "state")
	before := s.settled()
	s.start()
	s.established()
	s.down()
	s.same("down", before, s.settled())
	disk.Fill(t)

	s.start()
	s.established()
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	reason, message := s.stateDir()
	if reason != "NotWritten" || !strings.Contains(message, "host.json: ") || !strings.Contains(message, "no space left on device") {
		t.Errorf("status says %q: %q", reason, message)
	}
	if r := s.sluice("doctor"); !strings.Contains(r.out, "state-directory") || !strings.Contains(r.out, "make room on the disk") {
		t.Errorf("the doctor says nothing of it:\n%s%s", r.out, r.err)
	}
	s.saidOnce("host.json")

	// What is ours is known to the next process of this boot, though the disk is still full.
	s.kill()
	s.start()
	s.established()
	if reason, _ := s.stateDir(); reason != "NotWritten" {
		t.Errorf("after a restart status says %q", reason)
	}
	disk.Free(t)
	eventually(t, func() error {
		if reason, message := s.stateDir(); reason != "" {
			return fmt.Errorf("with room status says %q: %q", reason, message)
		}
		return nil
	})
	if data, err := os.ReadFile(filepath.Join(s.Gateway.StateDir, "host.json")); err != nil || !json.Valid(data) {
		t.Errorf("with room the ledger is %q, %v", data, err)
	}
	if spares, _ := filepath.Glob(s.Gateway.Socket + ".*"); len(spares) > 0 {
		t.Errorf("still there: %v", spares)
	}
	disk.Fill(t)
	s.down()
	s.same("down with a full disk", before, s.settled())
}

// A disk that takes nothing more, as the kernel has it after errors, keeps nothing from coming up either.
func TestAReadOnlyDiskKeepsNoGatewayFromComingUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	disk := nstest.NewDisk(t, 4096)
	s.Gateway.StateDir = filepath.Join(disk.Dir, "state")
	s.start()
	s.established()

	// A restart changes nothing, and a change is refused with its reason.
	s.kill()
	disk.ReadOnly(t, true)
	s.start()
	s.established()
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	s.nothingToDo()
	s.edit("ports: [80, 443]", "ports: [80]")
	if r := s.sluice("apply", "-c", s.Gateway.File); r.code != 1 || !strings.Contains(r.err, "read-only file system") {
		t.Errorf("apply: %+v", r)
	}
	s.answers(s.Client, lab.Web4[0], 80, "web-1")

	// As after a boot.
	s.down()
	s.start()
	s.established()
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	reason, message := s.stateDir()
	if reason != "NotWritten" || !strings.Contains(message, "host.json: ") || !strings.Contains(message, "read-only file system") {
		t.Errorf("status says %q: %q", reason, message)
	}
	if r := s.sluice("doctor"); !strings.Contains(r.out, "mount it writable") {
		t.Errorf("the doctor says nothing of it:\n%s%s", r.out, r.err)
	}
	disk.ReadOnly(t, false)
	eventually(t, func() error {
		if reason, message := s.stateDir(); reason != "" {
			return fmt.Errorf("on a disk that is writable again status says %q: %q", reason, message)
		}
		return nil
	})
	s.apply()
}

// saidOnce fails where the log has more than one error about a file.
func (s *site) saidOnce(file string) {
	s.t.Helper()
	n := 0
	for line := range strings.Lines(s.daemonLog()) {
		if strings.Contains(line, "ERROR") && strings.Contains(line, file) {
			n++
		}
	}
	if n != 1 {
		s.t.Errorf("%d errors about %s are in the log:\n%s", n, file, s.daemonLog())
	}
}

// down is sluice down with what it leaves to the operator, and waits for the daemon's end.
func (s *site) down() {
	s.t.Helper()
	if r := s.sluice("down"); r.code != 0 {
		s.t.Fatalf("sluice down: %s%s", r.out, r.err)
	}
	s.ends(0)
	s.must(s.Gateway.Namespace, "ip addr del 198.18.0.2/30 dev eth0")
	s.must(s.Gateway.Namespace, "ip addr del 2001:db8::2/64 dev eth0")
}

func TestDamagedFilesAreToldByStatusWhileTheyMatter(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.edit("ports: [80, 443]", "ports: [80]")
	s.apply()
	s.terminate()
	s.flip("revisions/2/config.yaml")
	s.flip("health.json")
	s.flip("workloads.json")
	status := s.start()
	if status.Engine.Revision != 1 {
		t.Errorf("revision %d is live", status.Engine.Revision)
	}
	reason, message := s.stateDir()
	if reason != "Damaged" {
		t.Errorf("status says %q", reason)
	}
	for _, want := range []string{"revisions/2: ", "workloads.json: ", "add"} {
		if !strings.Contains(message, want) {
			t.Errorf("%q does not say %q", message, want)
		}
	}
	if r := s.sluice("show", "status"); !strings.Contains(r.out, "StateDirectorySound=False Damaged") {
		t.Errorf("show status:\n%s", r.out)
	}
	if r := s.sluice("doctor"); !strings.Contains(r.out, "what is named is to be done again") {
		t.Errorf("the doctor:\n%s", r.out)
	}
	s.apply()
	if _, message := s.stateDir(); strings.Contains(message, "revisions/") {
		t.Errorf("after an apply: %q", message)
	}
}

// flip turns a bit of a file around; one that is not there is made, and is none of ours.
func (s *site) flip(file string) {
	s.t.Helper()
	path := filepath.Join(s.Gateway.StateDir, file)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		data, err = []byte("x"), nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	data[0] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func TestASecondDaemonOfOneNetworkNamespaceIsRefused(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	before := s.settled()
	second := s.in(s.Gateway.Namespace, binary(), "run", "-c", s.Gateway.File, "--state-dir", s.Gateway.StateDir+"-2",
		"--bpf-dir", s.Gateway.BPFDir+"-2", "--socket", s.Gateway.Socket+"2")
	s.wants(second, 1, fmt.Sprintf("another sluice (pid %d) runs in this network namespace", s.Gateway.Daemon().PID()), "network namespace of its own")
	s.same("a second daemon", before, s.settled())
	s.wants(s.sluice("doctor"), 0) // nor do commands want the lock
	s.kill()                       // which goes with the process
	s.start()
}

// The pins of the run before are out of sight, as where one daemon was started by `ip netns exec` and the next by nsenter.
func TestAProgramOfAnotherRunIsToldAsOurOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.startAnew()
	s.established()
	s.terminate()
	former := s.Gateway.BPFDir
	s.Gateway.BPFDir += "-2"
	if err := s.Gateway.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		status, err := api.Show[api.Status](t.Context(), s.api, "status")
		if err != nil {
			return err
		}
		for _, want := range []string{"eth0", "Sluice's own XDP program of another run", "ip netns exec", "bpftool link detach id "} {
			if !strings.Contains(status.Engine.LastError, want) {
				return fmt.Errorf("the last error does not say %q: %s", want, status.Engine.LastError)
			}
		}
		return nil
	})
	r := s.sluice("doctor", "--bpf-dir", s.Gateway.BPFDir)
	for _, want := range []string{"of Sluice's own, of another run: its pins are not in this bpf_dir", "bpftool link detach id "} {
		if !strings.Contains(r.out, want) {
			t.Errorf("the doctor does not say %q:\n%s", want, r.out)
		}
	}
	// What it says helps.
	fix := s.status().Engine.LastError
	_, fix, _ = strings.Cut(fix, "`bpftool")
	fix, _, _ = strings.Cut(fix, "`")
	s.must(s.Gateway.Namespace, "bpftool"+fix)
	eventually(t, func() error {
		if st := s.status(); !st.Engine.Applied {
			return fmt.Errorf("not applied: %s", st.Engine.LastError)
		}
		return nil
	})
	if err := os.RemoveAll(former); err != nil {
		t.Error(err)
	}
}
