package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

const hash = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"

// image is a machine like the node image, of directories and units that are names.
type image struct {
	*Node
	t       *testing.T
	root    string
	name    string
	units   []string // commands that changed something, since the last take
	running map[string]bool
	fails   string // unit that does not start
}

func newImage(t *testing.T) *image {
	t.Helper()
	root := t.TempDir()
	i := &image{t: t, root: root, name: "localhost", running: map[string]bool{}}
	for path, text := range map[string]string{
		"etc/shadow":      "root:*:20000:0:99999:7:::\nbin:*:20000:0:99999:7:::\n",
		"keys/good.hash":  hash + "\n",
		"keys/plain.hash": "secret-word\n",
		"keys/open.hash":  hash,
	} {
		write(t, filepath.Join(root, path), text)
	}
	if err := os.Chmod(filepath.Join(root, "keys/open.hash"), 0o644); err != nil {
		t.Fatal(err)
	}
	i.start()
	return i
}

// start is that of a daemon: what it knows it reads.
func (i *image) start() {
	i.Node = New(slog.New(slog.DiscardHandler), Options{
		Root: i.root, Dir: filepath.Join(i.root, "run/sluice/node"), StateDir: filepath.Join(i.root, "state"), Units: i.systemctl,
		HostName: func() (string, error) { return i.name, nil }, SetHostName: func(n string) error { i.name = n; return nil },
	})
}

func (i *image) systemctl(_ context.Context, args ...string) error {
	unit := args[len(args)-1]
	switch args[0] {
	case "is-active":
		if !i.running[unit] {
			return errors.New("inactive")
		}
		return nil
	case "restart":
		if unit == i.fails {
			return errors.New("it did not start")
		}
		i.running[unit] = true
	case "stop":
		delete(i.running, unit)
	}
	i.units = append(i.units, args[0]+" "+unit)
	return nil
}

func (i *image) take() []string {
	out := i.units
	i.units = nil
	return out
}

// bring is what the engine does; it returns the steps.
func (i *image) bring(want State) (steps []string, err error) {
	i.t.Helper()
	have, err := i.Observe(i.t.Context())
	if err != nil {
		i.t.Fatal(err)
	}
	for _, op := range i.Diff(have, want) {
		if err := i.Apply(i.t.Context(), op); err != nil {
			return steps, err
		}
		steps = append(steps, op.String())
	}
	return steps, nil
}

// is says that the machine holds a state, for a daemon that has just started as well.
func (i *image) is(want State) {
	i.t.Helper()
	i.start()
	have, err := i.Observe(i.t.Context())
	if diff := cmp.Diff(want, have, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
		i.t.Errorf("observed (%v), -want +have:\n%s", err, diff)
	}
}

func (i *image) read(path string) string {
	i.t.Helper()
	b, err := os.ReadFile(filepath.Join(i.root, path))
	if err != nil {
		i.t.Error(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (i *image) all() State {
	return State{
		HostName: "edge-1", DNS: []netip.Addr{netip.MustParseAddr("198.18.0.53")}, NTP: []netip.Addr{netip.MustParseAddr("198.18.0.123"), netip.MustParseAddr("2001:db8::123")},
		SSH:     &SSH{Port: 2222, Keys: []string{"ssh-ed25519 AAAA alice", "ssh-ed25519 BBBB bob"}, From: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24"), netip.MustParsePrefix("2001:db8::/64")}},
		Console: &Console{HashFile: filepath.Join(i.root, "keys/good.hash")},
	}
}

func TestTheNodeBecomesWhatTheFileSays(t *testing.T) {
	i := newImage(t)
	i.is(State{})
	want := i.all()
	steps, err := i.bring(want)
	if err != nil {
		t.Fatal(err)
	}
	told := []string{"set the host name: edge-1", "set the DNS servers: 198.18.0.53", "set the NTP servers: 198.18.0.123 2001:db8::123",
		"set the SSH: port 2222, 2 keys, for 2 prefixes", "set the console login: password of " + want.Console.HashFile}
	if !slices.Equal(steps, told) {
		t.Errorf("steps %q", steps)
	}
	i.is(want)
	if again, _ := i.bring(want); len(again) > 0 {
		t.Errorf("the second time: %q", again)
	}
	if units := i.take(); !slices.Equal(units, []string{"restart systemd-timesyncd.service", "restart sluice-sshd.service"}) {
		t.Errorf("units %q", units)
	}
	for path, lines := range map[string][]string{
		"etc/resolv.conf": {"nameserver 198.18.0.53"},
		"etc/shadow":      {"root:" + hash + ":20000:0:99999:7:::", "bin:*:20000:0:99999:7:::"},
		"run/systemd/timesyncd.conf.d/50-sluice.conf": {"NTP=198.18.0.123 2001:db8::123", "FallbackNTP="},
		"run/sluice/node/authorized_keys":             {"ssh-ed25519 AAAA alice", "ssh-ed25519 BBBB bob"},
		"run/sluice/node/sshd_config": {"Port 2222", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "AuthenticationMethods publickey",
			"AllowUsers root@198.18.0.0/24", "AllowUsers root@2001:db8::/64"},
	} {
		for _, line := range lines {
			if text := i.read(path); !slices.Contains(strings.Split(text, "\n"), line) {
				t.Errorf("%s has no line %q:\n%s", path, line, text)
			}
		}
	}
	if text := i.read("run/sluice/node/applied.json"); strings.Contains(text, "$y$") {
		t.Errorf("a secret is in the record: %s", text)
	}

	// All of it goes again, but for the name, which a box must have.
	if _, err := i.bring(State{}); err != nil {
		t.Fatal(err)
	}
	i.is(State{})
	if i.running[sshd] || i.name != "edge-1" || !strings.HasPrefix(i.read("etc/shadow"), "root:*:") {
		t.Errorf("left: %v, %s, %s", i.running, i.name, i.read("etc/shadow"))
	}
	for _, path := range []string{"etc/resolv.conf", "run/sluice/node/sshd_config", "run/sluice/node/authorized_keys", "run/sluice/node/" + LoginFlag} {
		if _, err := os.Stat(filepath.Join(i.root, path)); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

// TestWhatSomebodyChangedIsSeen, part by part.
func TestWhatSomebodyChangedIsSeen(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*image)
		step   string
	}{
		{"host name", func(i *image) { i.name = "x" }, "set the host name"},
		{"resolv.conf", func(i *image) { write(i.t, i.root+"/etc/resolv.conf", "nameserver 192.0.2.1\n") }, "set the DNS"},
		{"timesyncd", func(i *image) { _ = os.Remove(i.root + "/run/systemd/timesyncd.conf.d/50-sluice.conf") }, "set the NTP"},
		{"a key", func(i *image) { write(i.t, i.root+"/run/sluice/node/authorized_keys", "ssh-ed25519 CCCC eve\n") }, "set the SSH"},
		{"sshd", func(i *image) { delete(i.running, sshd) }, "set the SSH"},
		{"the password", func(i *image) { write(i.t, i.root+"/etc/shadow", "root::0:0::::\n") }, "set the console login"},
		{"the file of the hash", func(i *image) { write(i.t, i.root+"/keys/good.hash", strings.Replace(hash, "F5", "F6", 1)) }, "set the console login"},
		{"the record", func(i *image) { write(i.t, i.root+"/run/sluice/node/applied.json", "{") }, "set the host name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newImage(t)
			want := i.all()
			if _, err := i.bring(want); err != nil {
				t.Fatal(err)
			}
			c.change(i)
			steps, err := i.bring(want)
			if err != nil || len(steps) == 0 || !strings.HasPrefix(steps[0], c.step) {
				t.Errorf("%q %v", steps, err)
			}
			i.is(want)
		})
	}
}

// TestAStepThatFailedIsNotDone: its file is there, and no unit runs by it.
func TestAStepThatFailedIsNotDone(t *testing.T) {
	i := newImage(t)
	want := i.all()
	i.fails = timesync
	if steps, err := i.bring(want); err == nil || len(steps) != 2 {
		t.Fatalf("%q %v", steps, err)
	}
	i.is(State{HostName: want.HostName, DNS: want.DNS})
	i.fails = ""
	if steps, err := i.bring(want); err != nil || len(steps) != 3 {
		t.Errorf("%q %v", steps, err)
	}
	i.is(want)
	// The same where the server was another before.
	other := i.all()
	other.NTP = other.NTP[:1]
	i.fails = timesync
	if _, err := i.bring(other); err == nil {
		t.Fatal("no error")
	}
	i.fails = ""
	if steps, err := i.bring(want); err != nil || len(steps) != 1 {
		t.Errorf("the way back: %q %v", steps, err)
	}
	i.is(want)
}

func TestTheHostKeyIsMadeOnce(t *testing.T) {
	i := newImage(t)
	if _, err := i.bring(i.all()); err != nil {
		t.Fatal(err)
	}
	first := i.read("state/keys/ssh_host_ed25519_key")
	signer, err := ssh.ParsePrivateKey([]byte(first))
	if err != nil || string(ssh.MarshalAuthorizedKey(signer.PublicKey())) != i.read("state/keys/ssh_host_ed25519_key.pub") {
		t.Errorf("%v", err)
	}
	if info, err := os.Stat(filepath.Join(i.root, "state/keys/ssh_host_ed25519_key")); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := os.RemoveAll(filepath.Join(i.root, "run")); err != nil { // a boot
		t.Fatal(err)
	}
	i.start()
	if _, err := i.bring(i.all()); err != nil || i.read("state/keys/ssh_host_ed25519_key") != first {
		t.Errorf("after a boot the node is another one (%v)", err)
	}
}

func TestAPasswordThatIsNoneIsRefusedWithoutAWordOfIt(t *testing.T) {
	i := newImage(t)
	for file, want := range map[string]string{"plain.hash": "does not hold the hash of a password", "open.hash": "can be read by others", "none.hash": "no such file"} {
		_, err := i.bring(State{Console: &Console{HashFile: filepath.Join(i.root, "keys", file)}})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret-word") {
			t.Errorf("%s: %v", file, err)
		}
		i.is(State{})
	}
	if !strings.HasPrefix(i.read("etc/shadow"), "root:*:") {
		t.Errorf("root has a password: %s", i.read("etc/shadow"))
	}
}
