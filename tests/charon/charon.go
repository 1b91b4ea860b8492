// Package charon runs strongSwan's charon for tests, with settings of their own: nothing of the machine's is read.
package charon

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Program is where Debian puts it, which is not in everybody's PATH; its plugins are at a pattern of names.
const (
	Program = "/usr/sbin/charon-systemd"
	plugins = "/usr/lib/ipsec/plugins/libstrongswan-%s.so"
)

// Backends are the plugins that do what a kernel does. The one of user space makes a TUN, takes ESP in UDP only, and knows neither
// interface ids nor traps.
const (
	Kernel    = "kernel-netlink"
	Userspace = "kernel-libipsec kernel-netlink"
)

// load are the other plugins: listed, for those of other packages would come with whatever is installed.
const load = "random nonce aes sha1 sha2 hmac kdf gcm openssl x509 pem pkcs1 pkcs8 revocation constraints %s socket-default vici"

const settings = `
charon-systemd {
	load = %s
	retransmit_timeout = 0.5
	retransmit_tries = 4
	plugins {
		vici { socket = unix://%s }
		openssl { load_legacy = no }
	}
	journal { default = -1 }
	filelog { stderr { default = 1 } }
}
`

// Files are what a machine needs to run charon with the kernel's ESP, without the libraries.
func Files() []string {
	files := []string{Program}
	for _, name := range strings.Fields(fmt.Sprintf(load, Kernel)) {
		files = append(files, fmt.Sprintf(plugins, name))
	}
	return files
}

// Daemon is a charon, running or not. It ends with its test.
type Daemon struct {
	Socket string // of VICI
	conf   string
	in     func(func() error) error
	cmd    *exec.Cmd
}

// New makes a charon that does not run yet. It does so where in runs a function: in the network namespace of a node.
func New(t testing.TB, backend string, in func(func() error) error) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "charon") // a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Socket: filepath.Join(dir, "vici"), conf: filepath.Join(dir, "strongswan.conf"), in: in}
	t.Cleanup(func() {
		d.Kill()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(d.conf, fmt.Appendf(nil, settings, fmt.Sprintf(load, backend), d.Socket), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

// Start does not wait for the socket. What the process says is logged by t.
func (d *Daemon) Start(t testing.TB) {
	t.Helper()
	cmd := exec.Command(Program)
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+d.conf)
	cmd.Stderr = &lines{log: func(line []byte) { t.Logf("%s: %s", filepath.Base(filepath.Dir(d.conf)), line) }}
	cmd.WaitDelay = time.Second
	if err := d.in(cmd.Start); err != nil {
		t.Fatal(err)
	}
	d.cmd = cmd
}

// Kill is SIGKILL, and waits until the kernel has closed what the process held.
func (d *Daemon) Kill() {
	if d.cmd != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}

// lines hands on whole lines of what is written.
type lines struct {
	log  func([]byte)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.log(line)
		l.rest = rest
	}
}
