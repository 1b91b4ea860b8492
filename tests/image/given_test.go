//go:build image

package image

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/api"
	"sluice/control/node/source"
	"sluice/tests/nstest"
)

// reached is a node that somebody manages: by SSH with a key, and at its console with a password.
const reached = `node:
  name: edge-1
  ssh: {authorized_keys: [%s]}
  console: {login: true, password_hash_file: /var/lib/sluice/keys/console.hash}
interfaces:
  - {name: enp0s16, role: management, addresses: [198.18.0.2/24, 203.0.113.2/24]}
management:
  accept: [{protocol: tcp, ports: [22], from: [198.18.0.0/24]}]
`

// unreachable is what no trial gets an answer of.
const unreachable = "apply: {checks: [{reach: 198.18.0.99}]}\n"

// TestWhatANodeIsGiven is one disk through its boots: with nothing, with a bad file on a stick, a good one, and one that does not pass its
// checks.
func TestWhatANodeIsGiven(t *testing.T) {
	ns := nstest.New(t)
	Tap(t, ns, "node", "198.18.0.1/24", "203.0.113.1/24")
	o := Options{Disk: NewDisk(t, Build(t), 0), NS: ns, Taps: []string{"node"}, Variables: filepath.Join(t.TempDir(), "variables")}
	boot := func(t *testing.T, stick map[string]string) *Machine {
		t.Helper()
		o.Devices = Stick(t, stick)
		m := Start(t, o)
		m.Settled(t)
		return m
	}
	step := func(name string, do func(t *testing.T)) {
		if !t.Run(name, do) {
			t.FailNow() // what follows builds on it
		}
	}
	key := newKey(t)
	good := fmt.Sprintf(reached, authorized(key))
	hash := run(t, []byte(password+"\n"), "openssl", "passwd", "-6", "-stdin")
	var history string

	step("nothing: the maintenance state", func(t *testing.T) {
		m := boot(t, nil)
		maintained(t, m, "no configuration was found")
		m.PowerOff(t)
	})
	step("a bad file: the maintenance state, and what is wrong", func(t *testing.T) {
		m := boot(t, map[string]string{"sluice.yaml": "nodes: {name: edge-1}\n"})
		maintained(t, m, "unknown key `nodes`")
		m.PowerOff(t)
	})
	step("a good file is revision 1", func(t *testing.T) {
		m := boot(t, map[string]string{"sluice.yaml": good, "keys/console.hash": hash})
		if b := given(t, m); b.Source != source.FromStick || b.Outcome != source.Accepted || b.Revision != 1 {
			t.Errorf("%+v", b)
		}
		if who, err := secureShell(ns, "198.18.0.2:22", key, "hostname; id -un"); who != "edge-1\nroot\n" || err != nil {
			t.Errorf("SSH: %q %v", who, err)
		}
		if _, err := secureShell(ns, "198.18.0.2:22", newKey(t), "true"); err == nil {
			t.Error("a key that the file does not have is let in")
		}
		if _, err := secureShell(ns, "203.0.113.2:22", key, "true"); err == nil {
			t.Error("somebody from where management: accepts nobody is let in")
		}
		if open := m.Run(t, "ss -Hlntup | grep -v sshd || true"); open != "" {
			t.Errorf("besides SSH it listens:\n%s", open)
		}
		logIn(t, m)
		m.PowerOff(t)
	})
	step("one that does not pass its checks is rejected", func(t *testing.T) {
		m := boot(t, map[string]string{"sluice.yaml": good + unreachable})
		if b := given(t, m); b.Outcome != source.Rejected || !strings.Contains(b.Why, "198.18.0.99") {
			t.Errorf("%+v", b)
		}
		m.Shows(t, "boot configuration: usb")
		if _, err := secureShell(ns, "198.18.0.2:22", key, "true"); err != nil {
			t.Errorf("the node is not what it was: %v", err)
		}
		history = m.Run(t, "sluice history -o json")
		m.PowerOff(t)
	})
	step("and is not tried again", func(t *testing.T) {
		m := boot(t, map[string]string{"sluice.yaml": good + unreachable})
		if b := given(t, m); b.Outcome != source.Rejected {
			t.Errorf("%+v", b)
		}
		if now := m.Run(t, "sluice history -o json"); now != history {
			t.Errorf("the history was %s and is %s", history, now)
		}
		if _, err := secureShell(ns, "198.18.0.2:22", key, "true"); err != nil {
			t.Errorf("the node is not what it was: %v", err)
		}
		m.PowerOff(t)
	})
}

// TestWithoutADiskItKeepsEverythingInRAM is the UKI alone, as a boot over the network leaves it, with a file of the firmware's.
func TestWithoutADiskItKeepsEverythingInRAM(t *testing.T) {
	ns := nstest.New(t)
	Tap(t, ns, "node", "198.18.0.1/24")
	m := Start(t, Options{UKI: Build(t).UKI, NS: ns, Taps: []string{"node"}, Credentials: map[string]string{source.Credential: plain}})
	m.Settled(t)
	if b := given(t, m); b.Source != source.FromCredential || b.Outcome != source.Accepted {
		t.Errorf("%+v", b)
	}
	ns.Do(t, func() error { return ping("198.18.0.2") })
	if mounted := m.Run(t, "findmnt -rno TARGET /efi /var/lib/sluice /var/log/journal || true"); mounted != "" {
		t.Errorf("of a disk there is: %s", mounted)
	}
	m.PowerOff(t)
}

// maintained checks that a node without a revision says so and does nothing.
func maintained(t *testing.T, m *Machine, why string) {
	t.Helper()
	screen := m.Shows(t, "MAINTENANCE STATE")
	if flat := strings.Join(strings.Fields(screen), " "); !strings.Contains(flat, why) {
		t.Errorf("%q is not on the screen:\n%s", why, screen)
	}
	if open := m.Run(t, "ss -Hlntup"); open != "" {
		t.Errorf("it listens:\n%s", open)
	}
	if addresses := m.Run(t, "ip -o address show scope global"); addresses != "" {
		t.Errorf("it has addresses: %s", addresses)
	}
	if does := m.Run(t, "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv6.conf.enp0s16.accept_ra"); does != "0\n0\n0" {
		t.Errorf("it forwards, or takes what routers advertise: %q", does)
	}
	// Where nobody may log in, Enter is a look more.
	m.Type(t, "\r")
	m.Redrawn(t)
	if said := m.Console(); strings.Contains(said, "login:") {
		t.Errorf("somebody may log in:\n%s", said)
	}
}

const password = "correct horse"

// logIn does as a person at the serial line.
func logIn(t *testing.T, m *Machine) {
	t.Helper()
	m.Shows(t, "Press Enter to log in.")
	m.Type(t, "\r")
	m.Says(t, "edge-1 login:")
	m.Type(t, "root\r")
	m.Says(t, "Password:")
	m.Type(t, password+"\r")
	m.Says(t, "root@edge-1:")
	m.Type(t, "echo $((6 * 7)) is said; exit\r")
	m.Says(t, "42 is said")
	m.Redrawn(t)
}

// given is what became of what the node booted with.
func given(t *testing.T, m *Machine) api.Boot {
	t.Helper()
	var s api.Status
	raw := m.Run(t, "sluice show status -o json")
	if err := json.Unmarshal([]byte(raw), &s); err != nil || s.Boot == nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return *s.Boot
}
