//go:build deb

package deb

import (
	"bytes"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/tests/scratch"
)

// root is that of the tree.
const root = "../.."

// built makes the package of a version.
func built(t *testing.T, version string) (path string) {
	t.Helper()
	out := t.TempDir()
	cmd := exec.Command("packaging/build")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "VERSION="+version, "OUT="+out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packaging/build: %v\n%s", err, text)
	}
	return filepath.Join(out, "sluice_"+version+"_amd64.deb")
}

// debian is a chroot with Debian in it. A systemctl of the test's own writes down what it was asked, as if systemd ran.
type debian struct {
	t   *testing.T
	dir string
}

func newDebian(t *testing.T) debian {
	t.Helper()
	top, err := scratch.Dir("sluice-deb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	d := debian{t, filepath.Join(top, "root")}
	sources, err := exec.Command(root + "/images/sources").Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("mmdebstrap", "--quiet", "--variant=essential", "--include=systemd", `--aptopt=Apt::Install-Recommends "false"`, "trixie", d.dir, "-")
	cmd.Stdin = bytes.NewReader(sources)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, text)
	}
	if err := unix.Mount("proc", d.path("proc"), "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.path("proc"), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d.write("usr/local/sbin/systemctl", "#!/bin/sh\necho \"$@\" >>/asked\n", 0o755)
	if err := os.MkdirAll(d.path("run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d debian) path(name string) string { return filepath.Join(d.dir, name) }

func (d debian) write(name, text string, mode os.FileMode) {
	d.t.Helper()
	if err := os.MkdirAll(filepath.Dir(d.path(name)), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.path(name), []byte(text), mode); err != nil {
		d.t.Fatal(err)
	}
}

func (d debian) there(name string) bool {
	_, err := os.Lstat(d.path(name))
	return err == nil
}

// run runs a command in the chroot.
func (d debian) run(name string, args ...string) (output string) {
	d.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Path = name
	cmd.Dir, cmd.SysProcAttr = "/", &unix.SysProcAttr{Chroot: d.dir}
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	text, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %v: %v\n%s", name, args, err, text)
	}
	d.t.Logf("%s %v:\n%s", name, args, text)
	return string(text)
}

// install puts a package in, over the one that is there.
func (d debian) install(deb string) (output string) {
	d.t.Helper()
	data, err := os.ReadFile(deb)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("sluice.deb", string(data), 0o644)
	return d.run("/usr/bin/dpkg", "-i", "/sluice.deb")
}

// asked is what systemd was asked since the last time.
func (d debian) asked() string {
	d.t.Helper()
	text, err := os.ReadFile(d.path("asked"))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	if err := os.RemoveAll(d.path("asked")); err != nil {
		d.t.Fatal(err)
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(text)), "\n"), "; ")
}

func (d debian) wasAsked(when, want string) {
	d.t.Helper()
	if got := d.asked(); got != want {
		d.t.Errorf("%s systemd was asked %q, want %q", when, got, want)
	}
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s has no %q:\n%s", what, part, text)
		}
	}
}

func TestTheSameCommitGivesTheSamePackage(t *testing.T) {
	var sums [2][32]byte
	for i := range sums {
		data, err := os.ReadFile(built(t, "1.0"))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(data)
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds are %x and %x", sums[0], sums[1])
	}
}

// TestThePackagesLife goes from the first installation to the purge, with Debian's own dpkg and systemd's own judgement of the unit.
func TestThePackagesLife(t *testing.T) {
	d := newDebian(t)
	said := d.install(built(t, "1.0"))
	contains(t, "the installation", said, "write /etc/sluice/sluice.yaml", "systemctl enable --now sluice")
	d.wasAsked("at the installation", "daemon-reload") // nothing is enabled or started
	if d.there("etc/sluice/sluice.yaml") {
		t.Error("the package brings a configuration")
	}
	contains(t, "the version", d.run("/usr/bin/sluice", "version"), "1.0")
	contains(t, "the check of the example", d.run("/usr/bin/sluice", "check", "-c", "/etc/sluice/sluice.yaml.example"), "is good")
	d.unit()
	d.documented()

	// The operator's files, and what a daemon leaves.
	d.write("etc/sluice/sluice.yaml", "node: {name: mine}\n", 0o600)
	d.write("etc/sluice/sluice.yaml.example", "# mine\n", 0o644)
	d.write("var/lib/sluice/keys/wg.key", "secret\n", 0o600)
	said = d.install(built(t, "1.1"))
	d.wasAsked("at the upgrade", "daemon-reload; try-restart sluice.service")
	if strings.Contains(said, "enable --now") {
		t.Error("an upgrade tells of the first steps again")
	}
	contains(t, "the version", d.run("/usr/bin/sluice", "version"), "1.1")

	said = d.run("/usr/bin/dpkg", "-r", "sluice")
	d.wasAsked("at the removal", "disable --now sluice.service; daemon-reload")
	contains(t, "the removal", said, "stay in /var/lib/sluice")
	if d.there("usr/bin/sluice") || d.there("usr/lib/systemd/system/sluice.service") {
		t.Error("the removal leaves the binary or its unit")
	}
	for _, name := range []string{"etc/sluice/sluice.yaml", "etc/sluice/sluice.yaml.example", "var/lib/sluice/keys/wg.key"} {
		if !d.there(name) {
			t.Errorf("the removal took %s", name)
		}
	}
	d.run("/usr/bin/dpkg", "-P", "sluice")
	if d.there("etc/sluice") || d.there("var/lib/sluice") {
		t.Error("the purge leaves something")
	}
	if said := d.run("/usr/bin/dpkg", "--audit"); said != "" {
		t.Errorf("dpkg says %s", said)
	}
}

// unit has systemd judge the unit as it is installed.
func (d debian) unit() {
	d.t.Helper()
	if said := d.run("/usr/bin/systemd-analyze", "verify", "/usr/lib/systemd/system/sluice.service"); strings.Contains(said, "sluice") {
		d.t.Errorf("systemd-analyze says %s", said)
	}
	whole := d.run("/usr/bin/systemd-analyze", "cat-config", "systemd/system/sluice.service")
	contains(d.t, "the unit", whole, "KillMode=process", "NoNewPrivileges=yes", "ProtectSystem=strict", "WatchdogSec=60s", "StateDirectory=sluice",
		"ConditionPathExists=/etc/sluice/sluice.yaml", "ExecStart=/usr/bin/sluice run -c /etc/sluice/sluice.yaml")
	security := d.run("/usr/bin/systemd-analyze", "security", "--offline=yes", "--no-pager", "/usr/lib/systemd/system/sluice.service")
	lines := strings.Split(strings.TrimSpace(security), "\n")
	d.t.Log(lines[len(lines)-1])
}

// documented looks for what Debian wants of every package.
func (d debian) documented() {
	d.t.Helper()
	for _, name := range []string{"copyright", "changelog.gz", "licenses.gz", "README.Debian", "examples/reference.yaml"} {
		if !d.there("usr/share/doc/sluice/" + name) {
			d.t.Errorf("there is no %s", name)
		}
	}
	for _, name := range []string{"man/man8/sluice.8.gz", "bash-completion/completions/sluice", "zsh/vendor-completions/_sluice"} {
		if !d.there("usr/share/" + name) {
			d.t.Errorf("there is no /usr/share/%s", name)
		}
	}
	licenses, err := exec.Command("zcat", d.path("usr/share/doc/sluice/licenses.gz")).Output()
	if err != nil {
		d.t.Fatal(err)
	}
	for module := range strings.SplitSeq(string(licenses), "\n== ") {
		if len(module) < 500 {
			d.t.Errorf("a module without its licence: %q", module)
		}
	}
}
