package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// FRR is an FRR of its own in a namespace: zebra, and the daemons asked for. They insist on the user of their package, and who
// changes its user forgets Pdeathsig: so each has a PID namespace, whose root init dies with the test and takes it along.
type FRR struct{ dir string }

// StartFRR starts zebra and the daemons (bfdd, bgpd) and gives them the configuration.
func StartFRR(t testing.TB, ns *NS, config string, daemons ...string) *FRR {
	t.Helper()
	dir, err := os.MkdirTemp("", "frr") // not t.TempDir: a socket's path holds 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &FRR{dir}
	if err := ownedByFRR(dir); err != nil {
		t.Fatal(err)
	}
	for _, d := range append([]string{"zebra"}, daemons...) {
		log := filepath.Join(dir, d+".log")
		t.Cleanup(func() {
			if said, _ := os.ReadFile(log); t.Failed() {
				t.Logf("%s said:\n%s", d, said)
			}
		})
		args := []string{
			"--pid", "--fork", "--kill-child", "/bin/sh", "-c", `"$0" "$@"; exit`, "/usr/lib/frr/" + d, "-f", "/dev/null",
			"-i", filepath.Join(dir, d+".pid"), "-z", filepath.Join(dir, "zserv"), "--vty_socket", dir, "-P", "0", "--log", "file:" + log,
		}
		if d == "bfdd" {
			args = append(args, "--bfdctl", filepath.Join(dir, "bfdd.ctl"))
		}
		ns.Start(t, exec.Command("/usr/bin/unshare", args...))
		Eventually(t, 20*time.Second, func() string {
			if out, err := f.ask("-d", d, "-c", "show version"); err != nil {
				return fmt.Sprintf("%s: %v: %s", d, err, out)
			}
			return ""
		})
	}
	f.Load(t, config)
	return f
}

func ownedByFRR(dir string) error {
	u, err := user.Lookup("frr")
	if err != nil {
		return err
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	return errors.Join(uidErr, gidErr, os.Chown(dir, uid, gid))
}

// Load adds configuration to what is there.
func (f *FRR) Load(t testing.TB, config string) {
	t.Helper()
	file := filepath.Join(f.dir, "frr.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := f.ask("-f", file); err != nil {
		t.Fatalf("FRR's configuration: %v: %s", err, out)
	}
}

// Do runs commands of vtysh, which have to succeed, and returns what they print.
func (f *FRR) Do(t testing.TB, commands ...string) string {
	t.Helper()
	var args []string
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := f.ask(args...)
	if err != nil {
		t.Fatalf("vtysh %q: %v: %s", commands, err, out)
	}
	return out
}

func (f *FRR) ask(args ...string) (string, error) {
	out, err := exec.Command("/usr/bin/vtysh", append([]string{"--vty_socket", f.dir}, args...)...).CombinedOutput()
	return string(out), err
}
