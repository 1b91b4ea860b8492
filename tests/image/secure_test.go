//go:build image

package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sluice/control/node/slots"
	"sluice/tests/nstest"
)

// A secured image is signed, hardened and encrypted. It has no shell for tests, which would come as a credential: they log in by SSH,
// as an operator does.
const securedFile = `node:
  name: edge-1
  ssh: {authorized_keys: ["%s"]}
interfaces:
  - {name: enp0s16, role: management, addresses: [198.18.0.2/24]}
management:
  accept: [{protocol: tcp, ports: [22], from: [198.18.0.0/24]}]
`

// injected are credentials of whoever holds the firmware's strings: a configuration, and a unit that would be root.
var injected = map[string]string{
	"sluice.config":                       "node: {name: injected}\n",
	"systemd.extra-unit.injected.service": "[Service]\nExecStart=/bin/touch /run/injected\n",
}

// appended is what systemd's stub appends to a kernel's command line: here, that credentials are taken, and a command that would be root.
const appended = `type=11,value=io.systemd.stub.kernel-cmdline-extra=systemd.import_credentials=yes systemd.run="/bin/touch /run/injected" rdinit=/bin/sh`

type secured struct {
	*Machine
	owner    *testing.T // at whose end the machine goes: steps come and go before
	options  Options
	tpm      string // where swtpm keeps the machine's TPM
	other    string // and that of another machine
	login    ssh.Signer
	keys     string // that sign the image
	stranger string // keys of somebody else
	built    Image
	dir      string // that the node can fetch from, too
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	dir := t.TempDir()
	s := &secured{
		owner: t, tpm: filepath.Join(dir, "tpm"), other: filepath.Join(dir, "other"), login: newKey(t), keys: filepath.Join(dir, "release.key"), stranger: filepath.Join(dir, "stranger.key"), dir: dir,
	}
	for _, file := range []string{s.keys, s.stranger} {
		if _, err := slots.GenerateKey(file); err != nil {
			t.Fatal(err)
		}
	}
	s.built = Build(t, "SIGN="+s.keys, "HARDENED=yes", "ENCRYPT=yes", "INCREMENTAL=yes", "OUT="+filepath.Join(moduleRoot(t), ".cache", "image", "secured"))
	t.Cleanup(func() { _ = os.RemoveAll(s.built.Dir) })
	ns := nstest.New(t)
	Tap(t, ns, "node", "198.18.0.1/24")
	serve(t, ns, dir)
	s.options = Options{NS: ns, Taps: []string{"node"}, Secure: true, Credentials: injected, Variables: filepath.Join(dir, "variables"),
		Devices: []string{"-smbios", appended}}
	s.disk(t)
	return s
}

// disk gives the machine a new disk, with its configuration.
func (s *secured) disk(t *testing.T) {
	t.Helper()
	s.options.Disk = NewDisk(s.owner, s.built, 256)
	s.options.Disk.Put(t, Config, "sluice.yaml", fmt.Sprintf(securedFile, authorized(s.login)))
}

// on starts the machine with a TPM: "" is a machine that has none.
func (s *secured) on(t *testing.T, tpm string) {
	t.Helper()
	o := s.options
	if tpm != "" {
		o.Devices = append(o.Devices, startTPM(s.owner, tpm)...)
	}
	s.Machine = Start(s.owner, o)
}

// startTPM starts swtpm for one run of a machine, with what it kept in dir; it ends with the machine.
func startTPM(t *testing.T, dir string) []string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	sockets, err := os.MkdirTemp("", "tpm-")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(sockets, "control")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+socket, "--terminate")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(sockets)
	})
	for { // QEMU connects once
		if _, err := os.Stat(socket); err == nil {
			return []string{"-chardev", "socket,id=tpm,path=" + socket, "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm"}
		}
		if err := cmd.Process.Signal(nil); t.Context().Err() != nil || err != nil && cmd.ProcessState != nil {
			t.Fatal("swtpm does not come up")
		}
	}
}

// ssh runs a command on the node as the operator, and returns all that it says.
func (s *secured) ssh(command string) (string, error) {
	out, err := secureShell(s.options.NS, "198.18.0.2:22", s.login, "exec 2>&1; "+command)
	return strings.TrimSpace(out), err
}

// settled waits until the operator gets in and the daemon answers.
func (s *secured) settled(t *testing.T) {
	t.Helper()
	s.Eventually(t, func() string {
		out, err := s.ssh("sluice show status && systemctl is-active sluice-decide")
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return ""
	})
	t.Logf("the operator is in after %.1f s", s.Uptime().Seconds())
}

func (s *secured) off(t *testing.T) {
	t.Helper()
	_, _ = s.ssh("systemctl --no-block poweroff")
	<-s.ended
}

func (s *secured) says(t *testing.T, command, want string) {
	t.Helper()
	if out, err := s.ssh(command); err != nil || !strings.Contains(out, want) {
		t.Errorf("%s: %v: %s\nwant %q", command, err, out, want)
	}
}

// serve has ns's address serve the files of a directory.
func serve(t *testing.T, ns *nstest.NS, dir string) {
	t.Helper()
	var l net.Listener
	ns.Do(t, func() (err error) { l, err = net.Listen("tcp", "198.18.0.1:80"); return err })
	server := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
}

// shown waits until the status screen has it, however its lines are broken.
func (s *secured) shown(t *testing.T, what string) {
	t.Helper()
	s.Eventually(t, func() string {
		if screen := strings.Join(strings.Fields(s.Screen()), " "); !strings.Contains(screen, what) {
			return fmt.Sprintf("the status screen does not show %q:\n%s", what, screen)
		}
		return ""
	})
}

// TestASecuredNode is one node through what Secure Boot, hardening and encryption are for, in the order of its life.
func TestASecuredNode(t *testing.T) {
	s := newSecured(t)
	step := func(name string, do func(t *testing.T)) {
		if !t.Run(name, do) {
			t.FailNow() // what follows builds on it
		}
	}
	step("it boots by the keys that it has enrolled", func(t *testing.T) {
		s.on(t, s.tpm)
		s.Says(t, "Custom Secure Boot keys successfully enrolled")
		s.settled(t)
		s.says(t, "bootctl status --no-pager", "Secure Boot: enabled (user)")
		s.says(t, "od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-*", "1")
		s.says(t, "cat /sys/kernel/security/lockdown", "[integrity]")
	})
	step("what the firmware injects is not taken", func(t *testing.T) {
		s.says(t, "hostname", "edge-1")
		s.says(t, "systemctl cat injected.service || true", "No files found for injected.service")
		if out, err := s.ssh("ls /run/injected || ls /run/credentials/@system/*"); err == nil {
			t.Errorf("there is %s", out)
		}
		if line, err := s.ssh("cat /proc/cmdline"); err != nil || !strings.HasSuffix(line, " --") {
			t.Errorf("%v: %s", err, line)
		}
	})
	step("the data is encrypted", func(t *testing.T) {
		s.says(t, "findmnt -no SOURCE /var/lib/sluice", "/dev/mapper/sluice-data")
		s.says(t, "blkid -p -o value -s TYPE /dev/disk/by-partlabel/sluice-data", "crypto_LUKS")
		s.says(t, "sluice show status", "has no recovery key")
	})
	step("an update that is not signed is refused", func(t *testing.T) {
		const url = "http://198.18.0.1/"
		write(t, filepath.Join(s.dir, "unsigned.efi"), read(t, s.built.UKI))
		if out, err := s.ssh("sluice image install " + url + "unsigned.efi"); err == nil || !strings.Contains(out, "not signed") {
			t.Errorf("%v: %s", err, out)
		}
		// Signed as an update, and not for the firmware.
		bare := filepath.Join(s.dir, "bare.efi")
		write(t, bare, withoutSignature(read(t, s.built.UKI)))
		if _, err := slots.Sign(s.keys, bare); err != nil {
			t.Fatal(err)
		}
		if out, err := s.ssh("sluice image install " + url + "bare.efi"); err == nil || !strings.Contains(out, "it is not signed for Secure Boot") {
			t.Errorf("%v: %s", err, out)
		}
	})
	var recovery string
	step("a recovery key is told once", func(t *testing.T) {
		out, err := s.ssh("sluice image recovery-key 2>/dev/null")
		if err != nil || len(strings.Split(out, "-")) != 8 {
			t.Fatalf("%v: %s", err, out)
		}
		recovery = out
		if _, err := s.ssh("echo kept >/var/lib/sluice/mark; sync"); err != nil {
			t.Error(err)
		}
		s.off(t)
	})
	newer, strange := filepath.Join(s.dir, "newer.efi"), filepath.Join(s.dir, "strange.efi")
	changed := newest(t, read(t, s.built.UKI))
	write(t, newer, withoutSignature(changed))
	sign(t, s.stranger, newer, strange)
	step("a changed image does not start, and then the old one does, and opens its data", func(t *testing.T) {
		s.refused(t, "9.8", changed)
		s.on(t, s.tpm)
		s.settled(t)
		s.says(t, "sluice image status", "left no word")
		s.says(t, "cat /var/lib/sluice/mark", "kept")
		if out, err := s.ssh("sluice show status"); err != nil || strings.Contains(out, "recovery key") {
			t.Errorf("%v: %s", err, out)
		}
		s.off(t)
	})
	step("nor does a stranger's; and another machine's TPM does not open the data, and the console says so", func(t *testing.T) {
		s.refused(t, "9.9", read(t, strange))
		s.on(t, s.other)
		s.shown(t, "this machine's TPM does not open it")
		t.Log(s.Screen())
		s.silent(t)
	})
	step("the recovery key does, once, and binds the data to that TPM", func(t *testing.T) {
		s.options.Disk.Put(t, Config, "recovery-key", recovery+"\n")
		s.on(t, s.other)
		s.settled(t)
		s.says(t, "cat /var/lib/sluice/mark", "kept")
		s.says(t, "sluice show status", "the key is void")
		s.says(t, "sluice show status", "has no recovery key")
		if out, err := s.ssh("sluice image recovery-key"); err != nil || strings.Contains(out, recovery) { // by that TPM
			t.Errorf("%v: %s", err, out)
		}
		s.off(t)
	})
	step("without a TPM a new disk keeps still, and nothing in the clear", func(t *testing.T) {
		s.disk(t)
		s.on(t, "")
		s.shown(t, "encrypted by the machine's TPM, and the machine shows none")
		s.silent(t)
		if _, _, found := s.options.Disk.find(t, Data); found {
			t.Error("it has made a data partition")
		}
	})
}

// refused has the loader try a UKI, once, that the firmware does not start. The loader counts no try where the next name is taken,
// so each version is tried in one step.
func (s *secured) refused(t *testing.T, version string, uki []byte) {
	t.Helper()
	s.options.Disk.Put(t, ESP, "EFI/Linux/sluice_"+version+"+1.efi", string(uki))
	s.on(t, s.tpm)
	s.Says(t, "Access Denied")
	s.Cut()
}

// silent switches a machine off that must have taken no configuration.
func (s *secured) silent(t *testing.T) {
	t.Helper()
	if err := s.options.NS.Try(func() error { return pingFrom("198.18.0.1", "198.18.0.2") }); err == nil {
		t.Error("it has an address")
	}
	s.Cut()
}

// newest makes the version in a UKI the newest by one byte.
func newest(t *testing.T, uki []byte) []byte {
	t.Helper()
	out := bytes.Replace(uki, []byte(`IMAGE_VERSION="0.`), []byte(`IMAGE_VERSION="9.`), 1)
	if bytes.Equal(out, uki) {
		t.Fatal("no version that begins with 0.")
	}
	return out
}

// withoutSignature takes a PE file's attribute certificates off: they are its end, and entry 4 of the data directories.
func withoutSignature(file []byte) []byte {
	out := bytes.Clone(file)
	entry := out[binary.LittleEndian.Uint32(out[0x3c:])+4+20+112+4*8:]
	out = out[:binary.LittleEndian.Uint32(entry)]
	clear(entry[:8])
	return out
}

// sign signs a UKI for the firmware by a tool of the image's build, with the libraries that belong to it.
func sign(t *testing.T, keys, from, to string) {
	t.Helper()
	tools := strings.TrimSpace(run(t, nil, filepath.Join(moduleRoot(t), "images", "tools")))
	libraries := filepath.Join(tools, "usr/lib/x86_64-linux-gnu")
	run(t, nil, filepath.Join(tools, "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries+":"+libraries+"/systemd",
		filepath.Join(tools, "usr/lib/systemd/systemd-sbsign"), "sign", "--private-key="+keys+".uefi.key", "--certificate="+keys+".uefi.crt", "--output="+to, from)
}
