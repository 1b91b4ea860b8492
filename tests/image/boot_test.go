package image

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"sluice/tests/nstest"
)

// plain has no uplink, and so no program for an emulated verifier to look at for minutes.
const plain = `node: {name: edge-1}
interfaces:
  - {name: enp0s16, role: management, addresses: [198.18.0.2/24]}
management:
  accept: [{protocol: tcp, ports: [22], from: [198.18.0.0/24]}]
`

func TestTheImageBootsAndTakesItsFile(t *testing.T) {
	built := Build(t)
	disk := NewDisk(t, built, 256)
	disk.Put(t, Config, "sluice.yaml", plain)
	ns := nstest.New(t)
	Tap(t, ns, "node", "198.18.0.1/24")
	m := Start(t, Options{Disk: disk, NS: ns, Taps: []string{"node"}})
	m.Settled(t)
	t.Logf("ready after %.1f s; %s", m.Uptime().Seconds(), m.Run(t, "systemd-analyze time | head -1"))
	t.Logf("memory: %s", m.Run(t, "free -m"))
	t.Logf("UKI of %d MiB", size(t, built.UKI)>>20)
	ns.Do(t, func() error { return ping("198.18.0.2") })

	if open := m.Run(t, "ss -Hlntup"); open != "" {
		t.Errorf("it listens:\n%s", open)
	}
	if forwards := m.Run(t, "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding"); forwards != "0\n0" {
		t.Errorf("it forwards: %q", forwards)
	}
	// The data partition is as large as its disk lets it be.
	_, want := disk.Partition(t, Data)
	got, err := strconv.ParseInt(m.Run(t, "findmnt -bno SIZE /var/lib/sluice"), 10, 64)
	if err != nil || want < 256<<20 || got < want*8/10 {
		t.Errorf("of %d bytes the data partition's file system has %d: %v", want, got, err)
	}
	m.PowerOff(t)
}

// Settled waits until the machine is up and its daemon has applied what it found.
func (m *Machine) Settled(t testing.TB) {
	t.Helper()
	if state, err := m.Try(t, "systemctl is-system-running --wait"); err != nil {
		t.Fatalf("the machine is %s:\n%s", state, m.Run(t, "systemctl --failed --no-pager; journalctl -b -p warning --no-pager | tail -50"))
	}
	m.Eventually(t, func() string {
		status, err := m.Try(t, "sluice show status")
		if err != nil {
			return fmt.Sprintf("sluice show status: %v: %s\n%s", err, status, m.Run(t, "journalctl -u sluice --no-pager | tail -20"))
		}
		return ""
	})
}

func ping(address string) error {
	if out, err := exec.Command("ping", "-c", "3", "-i", "0.2", "-w", "60", address).CombinedOutput(); err != nil {
		return fmt.Errorf("ping %s: %w\n%s", address, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func size(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
