//go:build image

package image

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/control/api"
	"sluice/control/node/slots"
	"sluice/tests/nstest"
)

// updated is a node whose slots a test changes. Its disk and its firmware's variables outlive its machines.
type updated struct {
	*Machine
	owner   *testing.T // at whose end the machine goes: steps come and go before
	options Options
	built   Image
	key     string
	first   string // the version that the disk came with
	url     string // of a directory of images
	dir     string
}

// managed has no uplink, and so no program for an emulated verifier to look at for minutes.
const managed = `node: {name: edge-1}
interfaces:
  - {name: enp0s16, role: management, addresses: [198.18.0.2/24]}
  - {name: lo, addresses: [203.0.113.1/32]}
management:
  accept: [{protocol: tcp, ports: [22], from: [198.18.0.0/24]}]
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors:
    - {name: tor, address: 198.18.0.1, asn: 65000, families: [ipv4-unicast]}
  advertise: [{prefixes: [203.0.113.0/24]}]
apply:
  checks: [{neighbors: keep}]
`

// ready waits until the daemon has applied its revision, and the neighbor is up.
func (u *updated) ready(t *testing.T) {
	t.Helper()
	u.Eventually(t, func() string {
		var s api.Status
		raw, err := u.Try(t, "sluice show status -o json")
		if err == nil {
			err = json.Unmarshal([]byte(raw), &s)
		}
		if err != nil || !s.Engine.Applied {
			return fmt.Sprintf("no revision is applied: %s %v", raw, err)
		}
		var neighbors []api.Neighbor
		raw, err = u.Try(t, "sluice show bgp -o json")
		if err == nil {
			err = json.Unmarshal([]byte(raw), &neighbors)
		}
		if err != nil || len(neighbors) != 1 || neighbors[0].State != "established" {
			return fmt.Sprintf("the neighbor is not up: %s %v", raw, err)
		}
		return ""
	})
}

// newUpdated is a node before its first boot.
func newUpdated(t *testing.T) *updated {
	t.Helper()
	u := &updated{owner: t, built: Build(t), key: filepath.Join(t.TempDir(), "key"), dir: t.TempDir()}
	disk := NewDisk(t, u.built, 256)
	disk.Put(t, Config, "sluice.yaml", managed)
	ns := nstest.New(t)
	Tap(t, ns, "node", "198.18.0.1/24")
	nstest.StartBird(t, ns, router)
	u.options = Options{Disk: disk, NS: ns, Taps: []string{"node"}, Variables: filepath.Join(t.TempDir(), "variables"),
		Devices: []string{"-device", "i6300esb", "-action", "watchdog=reset"}}
	if _, err := slots.GenerateKey(u.key); err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	ns.Do(t, func() (err error) { l, err = net.Listen("tcp", "198.18.0.1:80"); return err })
	server := &http.Server{Handler: http.FileServer(http.Dir(u.dir))}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	u.url = "http://198.18.0.1/"
	return u
}

// begin is the first boot. From then on the node trusts the key.
func (u *updated) begin(t *testing.T) {
	t.Helper()
	u.on(t)
	u.ready(t)
	u.first = u.status(t).Running
	public := string(read(t, u.key+".pub"))
	u.Run(t, "mkdir -p /var/lib/sluice/keys/image.d && cat >/var/lib/sluice/keys/image.d/test.pub <<'END'\n"+public+"END\nsync")
}

// on starts the machine.
func (u *updated) on(t *testing.T) {
	t.Helper()
	u.Machine = Start(u.owner, u.options)
}

// publish puts a variant where the node can fetch it.
func (u *updated) publish(t *testing.T, v variant) string {
	t.Helper()
	from := v.make(t, u.built, u.key)
	for _, end := range []string{"", ".sig"} {
		if err := os.Rename(from+end, filepath.Join(u.dir, filepath.Base(from)+end)); err != nil {
			t.Fatal(err)
		}
	}
	return u.url + filepath.Base(from)
}

func (u *updated) status(t *testing.T) (s slots.Status) {
	t.Helper()
	raw := u.Run(t, "sluice image status -o json")
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return s
}

// ask is Try for a machine that may reboot meanwhile: a question has an end. One that fails takes the connection along: what was written to
// it may be lost.
func (m *Machine) ask(command string) (string, error) {
	s := &m.shell
	if err := s.connect(); err != nil {
		return "", err
	}
	code, out, err := s.ask(command, 10*time.Second)
	if err != nil {
		_ = s.conn.Close()
		s.conn = nil
	} else if code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	return out, err
}

// decided bounds the wait for a node that may take three tries and one more boot.
const decided = 3 * slow

// becomes waits until the node's status is as wanted, whatever number of boots that takes.
func (u *updated) becomes(t *testing.T, what string, ok func(slots.Status) bool) slots.Status {
	t.Helper()
	for deadline := time.Now().Add(decided); ; time.Sleep(time.Second) {
		var s slots.Status
		raw, err := u.ask("sluice image status -o json")
		if err == nil {
			err = json.Unmarshal([]byte(raw), &s)
		}
		if err == nil && ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not %s after %v: %s %v", what, decided, raw, err)
		}
	}
}

// quick has the gate give up sooner than after five minutes.
const quick = "[Service]\nExecStart=\nExecStart=/usr/bin/sluice node gate --within 15s\n"

// misbehaves is a version that is sick in another way at each of its tries: its daemon stands still once it is ready, PID 1 stands still,
// and the kernel panics.
var misbehaves = map[string]string{
	"etc/systemd/system/sluice.service.d/zz-test.conf":   "[Service]\nExecStartPost=+/bin/bash /usr/lib/misbehave\n",
	"etc/systemd/system/sluice-gate.service.d/test.conf": quick,
	"usr/lib/misbehave": `say() { echo "misbehaves: $1" >/dev/console; }
case $(tr -d '\0' </sys/firmware/efi/efivars/LoaderBootCountPath-*) in
*+2-1.efi) say daemon; kill -STOP "$MAINPID" ;;
*+1-2.efi) say "PID 1"; echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze; sleep infinity ;;
*) say kernel; echo c >/proc/sysrq-trigger ;;
esac
`,
}

// cutOff is a version that cannot speak BGP.
func cutOff(gate string) map[string]string {
	return map[string]string{
		"etc/systemd/system/sluice.service.d/zz-test.conf":   "[Service]\nExecStartPre=+/usr/sbin/nft -f /usr/lib/cut.nft\n",
		"etc/systemd/system/sluice-gate.service.d/test.conf": gate,
		"usr/lib/cut.nft": "table inet cut { chain in { type filter hook input priority -300; tcp sport 179 drop; tcp dport 179 drop; }; }\n",
	}
}

// refused says that an install has to fail, and with what words. The slots stay as they are.
func (u *updated) refused(t *testing.T, arguments, want string) {
	t.Helper()
	before := u.Run(t, "ls -i --full-time /efi/EFI/Linux")
	if out, err := u.Try(t, "sluice image install "+arguments); err == nil || !strings.Contains(out, want) {
		t.Errorf("%v: %s; want %q", err, out, want)
	}
	if after := u.Run(t, "ls -i --full-time /efi/EFI/Linux"); after != before {
		t.Errorf("there was\n%s\nand is\n%s", before, after)
	}
}

// kept is what belongs to no slot.
func (u *updated) kept(t *testing.T) string {
	t.Helper()
	return u.Run(t, "sluice history -o json; sluice show bans -o json | grep -o 192.0.2.7; cat /var/lib/sluice/keys/mark; sha256sum /run/sluice/boot/sluice.yaml")
}

// life is a node whose steps build on each other.
func (u *updated) life(t *testing.T) (step func(name string, do func(t *testing.T))) {
	t.Helper()
	return func(name string, do func(t *testing.T)) {
		began := time.Now()
		if !t.Run(name, do) {
			t.FailNow()
		}
		t.Logf("%s: %.0f s", name, time.Since(began).Seconds())
	}
}

// marked leaves on the node what no update may lose, and returns it.
func (u *updated) marked(t *testing.T) string {
	t.Helper()
	u.Run(t, "sluice ban 192.0.2.7 --why test && echo mark >/var/lib/sluice/keys/mark && sync")
	return u.kept(t)
}

// lost says whether any of it is gone.
func (u *updated) lost(t *testing.T, kept string) {
	t.Helper()
	if now := u.kept(t); now != kept {
		t.Errorf("there was\n%s\nand is\n%s", kept, now)
	}
}

// again switches the node off and on.
func (u *updated) again(t *testing.T) {
	t.Helper()
	u.PowerOff(t)
	u.on(t)
}

// TestUpdates is one node through updates that are refused, or that pass.
func TestUpdates(t *testing.T) {
	u := newUpdated(t)
	u.begin(t)
	step := u.life(t)
	kept := u.marked(t)
	good := u.publish(t, variant{version: "1.1"})
	step("what is no update is refused", func(t *testing.T) {
		u.refused(t, u.publish(t, variant{version: "0.0.1"}), "which is older than "+u.first)
		u.refused(t, u.publish(t, variant{version: u.first})+" --downgrade", "which runs here")
		path := filepath.Join(u.dir, "sluice_1.1.efi")
		data := read(t, path)
		data[len(data)/2] ^= 1
		write(t, path, data)
		u.refused(t, good, "its signature does not fit")
		data[len(data)/2] ^= 1
		write(t, path, data)
		u.refused(t, u.url+"nowhere.efi", "not signed")
	})
	step("a good one is blessed, and nothing is lost", func(t *testing.T) {
		u.Run(t, "sluice image install "+good)
		if s := u.status(t); s.Next != "1.1" || s.Running != u.first {
			t.Errorf("%+v", s)
		}
		u.again(t)
		u.becomes(t, "blessed", func(s slots.Status) bool {
			return s.Running == "1.1" && s.Slots[0].Version == "1.1" && s.Slots[0].State == slots.Good && !s.Trial
		})
		t.Logf("blessed %.1f s after power on", u.Uptime().Seconds())
		u.lost(t, kept)
	})
	step("back by hand", func(t *testing.T) {
		u.Run(t, "sluice image rollback")
		u.again(t)
		u.becomes(t, "back", func(s slots.Status) bool { return s.Running == u.first && s.Next == u.first && !s.Trial })
		u.ready(t)
		u.lost(t, kept)
		// And forth, and that taken back, before anybody reboots.
		u.Run(t, "sluice image rollback")
		if s := u.status(t); s.Next != "1.1" {
			t.Errorf("%+v", s)
		}
		u.Run(t, "sluice image promote")
		if s := u.status(t); s.Next != u.first {
			t.Errorf("%+v", s)
		}
	})
	u.PowerOff(t)
}

// stage puts a variant into a slot of a disk that is switched off, with so many tries.
func (u *updated) stage(t *testing.T, v variant, tries int) {
	t.Helper()
	name := slots.Name{Version: v.version, Counted: true, Left: tries}
	u.options.Disk.PutFile(t, ESP, "EFI/Linux/"+name.File(), v.make(t, u.built, u.key))
}

// TestUpdatesThatFail is one machine, switched on once, on whose disk are two updates that fail in four ways. It comes back by itself to
// the version that passed.
func TestUpdatesThatFail(t *testing.T) {
	u := newUpdated(t)
	u.stage(t, variant{version: "1.3", cmdline: "rdinit=/bin/false"}, 1)
	u.stage(t, variant{version: "1.2", files: misbehaves}, 3)
	u.on(t)
	s := u.becomes(t, "back", func(s slots.Status) bool { return s.Running != "" && s.Running != "1.2" && !s.Trial })
	t.Logf("back %.1f s after power on: %+v", u.Uptime().Seconds(), s)
	if len(s.Slots) != 3 || s.Next != s.Running || s.Slots[0].Version != s.Running || s.Slots[0].State != slots.Good {
		t.Fatalf("%+v", s)
	}
	if none := s.Slots[1]; none.Version != "1.3" || none.State != slots.Failed || none.TriesDone != 1 || !strings.Contains(none.Why, "left no word") {
		t.Errorf("%+v", none)
	}
	if sick := s.Slots[2]; sick.Version != "1.2" || sick.State != slots.Failed || sick.TriesDone != 3 || !strings.Contains(sick.Why, "its health gate failed") ||
		!strings.Contains(sick.Why, "the daemon:") {
		t.Errorf("%+v", sick)
	}
	at := 0
	for _, said := range []string{"Attempted to kill init", "misbehaves: daemon", "misbehaves: PID 1", "misbehaves: kernel", "Kernel panic"} {
		next := strings.Index(u.Console()[at:], said)
		if next < 0 {
			t.Fatalf("the console has not said %q there", said)
		}
		at += next
	}
	u.ready(t)
	u.PowerOff(t)
}

// TestANeighborThatDoesNotComeBack is what the gate asks for beside the daemon, and how somebody overrules it.
func TestANeighborThatDoesNotComeBack(t *testing.T) {
	u := newUpdated(t)
	u.begin(t)
	step := u.life(t)
	step("an older version has one try", func(t *testing.T) {
		u.Run(t, "sluice image install --downgrade "+u.publish(t, variant{version: "0.0.1", files: cutOff(quick)}))
		if s := u.status(t); s.Next != "0.0.1" {
			t.Errorf("%+v", s)
		}
		u.again(t)
		s := u.becomes(t, "back", func(s slots.Status) bool { return s.Running == u.first })
		if failed := s.Slots[len(s.Slots)-1]; failed.Version != "0.0.1" || failed.TriesDone != 1 || !strings.Contains(failed.Why, "tor") {
			t.Errorf("%+v", s)
		} else {
			t.Logf("back %.1f s after power on: %s", u.Uptime().Seconds(), failed.Why)
		}
		u.ready(t)
	})
	step("a trial that waits passes by hand", func(t *testing.T) {
		u.Run(t, "sluice image install "+u.publish(t, variant{version: "1.4", files: cutOff("")}))
		u.again(t)
		u.becomes(t, "on trial", func(s slots.Status) bool { return s.Running == "1.4" && s.Trial })
		u.Run(t, "sluice image promote")
		if s := u.status(t); s.Trial || s.Next != "1.4" || s.Slots[0].State != slots.Good {
			t.Errorf("%+v", s)
		}
	})
	u.PowerOff(t)
}
