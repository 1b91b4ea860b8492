//go:build image

package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/control/api"
	"sluice/control/node/source"
	"sluice/tests/nstest"
)

// gateway has an uplink to a router, a LAN, and a tunnel to the router.
const gateway = `node: {name: edge-1}
interfaces:
  - {name: enp0s16, role: uplink, addresses: [198.18.0.2/24], xdp: {mode: native}}
  - {name: enp0s17, role: downstream, addresses: [10.0.2.1/24]}
  - {name: lo, addresses: [203.0.113.1/32]}
routes:
  - {prefix: 198.51.100.0/24, via: [198.18.0.1]}
management:
  accept: [{protocol: tcp, ports: [22], from: [198.18.0.0/24]}]
policy:
  ingress:
    default: accept
    rules:
      - {name: no-testers, from: [198.51.100.0/28], action: drop}
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors:
    - {name: tor, address: 198.18.0.1, asn: 65000, families: [ipv4-unicast]}
  advertise: [{prefixes: [203.0.113.0/24]}]
  learn: {accept: [{prefix: 192.0.2.0/24}]}
tunnels:
  - name: fra1
    type: wireguard
    local: {address: 198.18.0.2, port: 51820}
    addresses: [10.200.0.1/31]
    health: {probe: 10.200.0.0, interval: 1s, down_after: 3, up_after: 3}
    wireguard: {private_key_file: /var/lib/sluice/keys/fra1.key}
    peers:
      - {name: fra1-a, endpoints: ["198.18.0.1:51820"], public_keys: [%s], prefixes: [10.20.0.0/16]}
`

const router = `router id 198.18.0.1;
protocol static { ipv4; route 192.0.2.0/24 blackhole; }
protocol bgp node {
	local 198.18.0.1 as 65000; neighbor 198.18.0.2 as 65010;
	ipv4 { import all; export all; };
}`

// TestANodeAtWork is one machine from power on, with what it is there for.
func TestANodeAtWork(t *testing.T) {
	built := Build(t)
	disk := NewDisk(t, built, 256)
	peer := NewPeer(t)
	disk.Put(t, Config, "sluice.yaml", fmt.Sprintf(gateway, peer.Public))
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	disk.Dir(t, Config, "keys")
	disk.Put(t, Config, "keys/fra1.key", key.String()+"\n")
	tor, lan := nstest.New(t), nstest.New(t)
	Tap(t, tor, "node", "198.18.0.1/24")
	Tap(t, tor, "lan")
	tor.Address(t, "lo", "198.51.100.1/32", "198.51.100.33/32")
	bird := nstest.StartBird(t, tor, router)
	m := Start(t, Options{Disk: disk, NS: tor, Taps: []string{"node", "lan"}, Devices: []string{"-vga", "std"}})
	m.Eventually(t, func() string { // it has the tap open, and what is open may move
		if m.Console() == "" {
			return "no sign of the firmware"
		}
		return ""
	})
	Move(t, tor, "lan", lan, "10.0.2.10/24")
	tor.Do(t, func() error { return ip("route", "add", "10.0.2.0/24", "via", "198.18.0.2") })
	lan.Do(t, func() error { return ip("route", "add", "default", "via", "10.0.2.1") })

	m.Eventually(t, func() string { return complaint(tor.Try(func() error { return pingFrom("198.18.0.1", "10.0.2.10") })) })
	t.Logf("the first forwarded packet after %.1f s", m.Uptime().Seconds())
	m.Settled(t)
	t.Logf("%s; memory:\n%s", m.Run(t, "systemd-analyze time | head -1"), m.Run(t, "free -m; systemctl status sluice --no-pager | grep Memory"))

	t.Run("XDP is the driver's own", func(t *testing.T) {
		if link := m.Run(t, "ip -d link show enp0s16"); !strings.Contains(link, "prog/xdp ") || strings.Contains(link, "xdpgeneric") {
			t.Error(link)
		}
	})
	t.Run("packets are dropped and passed", func(t *testing.T) {
		m.Eventually(t, func() string {
			return complaint(tor.Try(func() error { return pingFrom("198.51.100.33", "198.18.0.2") }))
		})
		before := dropped(t, m)
		if err := tor.Try(func() error {
			return exec.Command("ping", "-c", "3", "-W", "1", "-I", "198.51.100.1", "198.18.0.2").Run()
		}); err == nil {
			t.Error("a packet that a rule drops was answered")
		}
		m.Eventually(t, func() string { // the guest may not have come to them
			if n := dropped(t, m) - before; n < 3 {
				return fmt.Sprintf("the rule has dropped %d packets, want 3", n)
			}
			return ""
		})
		if n := dropped(t, m) - before; n != 3 {
			t.Errorf("the rule has dropped %d packets, want 3", n)
		}
	})
	t.Run("BIRD", func(t *testing.T) {
		m.Eventually(t, func() string {
			if routes := bird.Do(t, "show route protocol node"); !strings.Contains(routes, "203.0.113.0/24") {
				return "BIRD has: " + routes
			}
			if routes := m.Run(t, "ip route show 192.0.2.0/24"); !strings.Contains(routes, "via 198.18.0.1") {
				return "the node has: " + routes
			}
			return ""
		})
	})
	t.Run("a tunnel", func(t *testing.T) {
		peer.Start(t, tor, key.PublicKey().String())
		m.Eventually(t, func() string {
			return complaint(tor.Try(func() error { return pingFrom("10.200.0.0", "10.200.0.1") }))
		})
		m.Eventually(t, func() string {
			if screen := m.Run(t, "sluice show tunnels"); !strings.Contains(screen, " up ") {
				return screen
			}
			return ""
		})
		if kind := m.Run(t, "ip -d link show fra1"); !strings.Contains(kind, "wireguard") {
			t.Errorf("not the kernel's WireGuard: %s", kind)
		}
	})
	t.Run("the status screen", func(t *testing.T) {
		t.Logf("the serial line:\n%s", m.Shows(t, "No problems."))
		// Characters of the screen, without their colours (vcs(4)).
		m.Eventually(t, func() string {
			screen := m.Run(t, "fold -w $(stty size </dev/tty1 | cut -d' ' -f 2) /dev/vcs1")
			if !strings.Contains(screen, "No problems.") || !strings.Contains(screen, "No login here") {
				return "tty1 shows:\n" + screen
			}
			t.Logf("tty1:\n%s", screen)
			return ""
		})
	})
	t.Run("a daemon that stands still is replaced, and packets flow meanwhile", func(t *testing.T) {
		const main = "systemctl show -P MainPID sluice"
		stood := m.Run(t, main)
		through := startPing(t, tor, "10.0.2.10")
		m.Run(t, "kill -STOP "+stood)
		m.Eventually(t, func() string {
			if now := m.Run(t, main); now == stood || now == "0" {
				return "the daemon's process is " + now
			}
			return ""
		})
		m.Settled(t)
		m.Eventually(t, through)
		if said := m.Run(t, "journalctl -b -u sluice --no-pager"); !strings.Contains(said, "Watchdog timeout") {
			t.Errorf("it was not the watchdog:\n%s", said)
		}
	})
	m.PowerOff(t)
}

var answered = regexp.MustCompile(`bytes from .* icmp_seq=(\d+)`)

// startPing sends an echo each second until the test ends. What it returns complains until every one has been answered up to one that
// came back since it was asked first.
func startPing(t *testing.T, ns *nstest.NS, to string) (through func() string) {
	t.Helper()
	var out lockedBuffer
	cmd := exec.Command("ping", "-i", "1", to)
	cmd.Stdout = &out
	ns.Start(t, cmd)
	known := -1
	return func() string {
		seen, last := map[int]bool{}, 0
		for _, m := range answered.FindAllStringSubmatch(out.String(), -1) {
			n, _ := strconv.Atoi(m[1])
			seen[n], last = true, max(last, n)
		}
		if known < 0 {
			known = last
		}
		if last <= known || len(seen) != last {
			return fmt.Sprintf("%d packets came back, the last of them number %d:\n%s", len(seen), last, out.String())
		}
		return ""
	}
}

// lockedBuffer is written by a process and read meanwhile.
type lockedBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.String()
}

func complaint(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

// pingFrom is one echo, answered within a second.
func pingFrom(from, to string) error {
	if out, err := exec.Command("ping", "-c", "1", "-W", "1", "-I", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("ping %s from %s: %w\n%s", to, from, err, out)
	}
	return nil
}

// dropped is how many packets the rule no-testers has dropped.
func dropped(t *testing.T, m *Machine) (n uint64) {
	t.Helper()
	var policies []api.Policy
	raw := m.Run(t, "sluice show policy ingress -o json")
	if err := json.Unmarshal([]byte(raw), &policies); err != nil || len(policies) != 1 {
		t.Fatalf("%v\n%s", err, raw)
	}
	for _, r := range policies[0].Rules {
		if r.Name == "no-testers" {
			return r.Packets
		}
	}
	t.Fatalf("no rule no-testers in %s", raw)
	return 0
}

// TestASecondBootKeepsTheState has a third, for which the data partition is damaged.
func TestASecondBootKeepsTheState(t *testing.T) {
	disk := NewDisk(t, Build(t), 0)
	disk.Put(t, Config, "sluice.yaml", plain)
	ns := nstest.New(t)
	Tap(t, ns, "node", "198.18.0.1/24")
	o := Options{Disk: disk, NS: ns, Taps: []string{"node"}, Variables: filepath.Join(t.TempDir(), "variables")}
	m := Start(t, o)
	m.Settled(t)
	id, history := m.Run(t, "cat /etc/machine-id"), m.Run(t, "sluice history -o json")
	m.Run(t, "echo kept >/var/lib/sluice/keys/mark && touch /srv/forgotten && sync")
	m.PowerOff(t)

	m = Start(t, o)
	m.Settled(t)
	if now := m.Run(t, "cat /etc/machine-id"); now != id {
		t.Errorf("the machine's id was %s and is %s", id, now)
	}
	if now := m.Run(t, "sluice history -o json"); now != history {
		t.Errorf("the history was %s and is %s", history, now)
	}
	if mark := m.Run(t, "cat /var/lib/sluice/keys/mark; ls /srv/forgotten 2>/dev/null || true"); mark != "kept" {
		t.Errorf("of what was written there is: %q", mark)
	}
	if boots := m.Run(t, "journalctl --list-boots --no-pager -o json | grep -o boot_id | wc -l"); boots != "2" {
		t.Errorf("the journal knows %s boots", boots)
	}
	m.PowerOff(t)

	disk.Damage(t, Data)
	m = Start(t, o)
	m.Shows(t, "accepted as revision 1")
	m.Shows(t, "the data partition could not be mounted")
	if b := given(t, m); b.Source != source.FromPartition || b.Outcome != source.Accepted || b.Revision != 1 {
		t.Errorf("without its data: %+v", b)
	}
	m.PowerOff(t)
}

// TestTwoBuildsAreTheSameBytes builds twice beside the image that is there, with nothing shared but downloads and tools.
func TestTwoBuildsAreTheSameBytes(t *testing.T) {
	first, second := Build(t), Build(t, "OUT="+filepath.Join(moduleRoot(t), ".cache", "image", "again"))
	t.Cleanup(func() { _ = os.RemoveAll(second.Dir) })
	a, b := run(t, nil, "cat", filepath.Join(first.Dir, "SHA256SUMS")), run(t, nil, "cat", filepath.Join(second.Dir, "SHA256SUMS"))
	if a != b || len(strings.Fields(a)) < 6 {
		t.Errorf("the first build's sums:\n%s\nthe second's:\n%s", a, b)
	}
}
