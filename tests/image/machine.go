package image

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/tests/nstest"
	"sluice/tests/vm"
)

// Firmware of Debian's package ovmf, and where it keeps its variables: fresh ones have no keys enrolled.
const (
	firmware  = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	secure    = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	variables = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// Options are of one machine. It boots from Disk, whose changes stay there, or without one from UKI, as over the network.
type Options struct {
	Disk *Disk
	UKI  string
	// NS is where the machine's taps are. Nil: it has no network.
	NS *nstest.NS
	// Taps are devices of NS, made by Tap; the machine's NICs are called enp0s16, enp0s17 and so on.
	Taps []string
	// Credentials are those that the firmware hands to systemd.
	Credentials map[string]string
	// Secure is firmware that has Secure Boot.
	Secure bool
	// Devices are further arguments of QEMU.
	Devices []string
	// Memory is in MiB. Zero: 1024.
	Memory int
	// Log is a file that takes every write to the disk, in the form of dm-log-writes. Empty: none.
	Log string
	// Variables is a file of the firmware's variables that lives longer than the machine. Empty: fresh ones.
	Variables string
}

// Machine is one run of an image, from power on.
type Machine struct {
	console console
	cmd     *exec.Cmd
	keys    io.WriteCloser
	shell   shell
	started time.Time
	ended   chan struct{}
}

// slow bounds every wait: a boot takes a minute where nothing else runs, and took five with eighteen at work on two CPUs.
const slow = 20 * time.Minute

// Start switches a machine on. It is switched off at the end of the test, and what its serial line says is among what the test says.
func Start(t testing.TB, o Options) *Machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-machine-") // not t.TempDir: a socket's path holds 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	vars := o.Variables
	if vars == "" {
		vars = filepath.Join(dir, "variables")
	}
	if _, err := os.Stat(vars); err != nil {
		run(t, nil, "cp", variables, vars)
	}
	m := &Machine{ended: make(chan struct{}), shell: shell{socket: filepath.Join(dir, "shell")}}
	m.cmd = exec.Command("qemu-system-x86_64", o.arguments(vars, m.shell.socket)...)
	m.cmd.Stdout = vm.UnixLines(io.MultiWriter(&m.console, t.Output()))
	m.cmd.Stderr = m.cmd.Stdout
	if m.keys, err = m.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	ns := o.NS
	if ns == nil {
		ns = nstest.New(t)
	}
	m.started = time.Now()
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ns.Do(t, m.cmd.Start)
	go func() {
		_ = m.cmd.Wait()
		close(m.ended)
	}()
	t.Cleanup(m.Cut)
	return m
}

func (o Options) arguments(vars, shell string) []string {
	code, chipset := firmware, "q35"
	if o.Secure { // it guards its variables by system management mode
		code, chipset = secure, "q35,smm=on"
		o.Devices = append([]string{"-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"}, o.Devices...)
	}
	args := append(vm.Emulator(1, cmp.Or(o.Memory, 1024)), "-machine", chipset, "-serial", "stdio",
		"-uuid", "6a0f3c5e-58b1-4d0e-8f5e-0c0ffee00001", // the machine's id is of it
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+code,
		"-drive", "if=pflash,format=raw,unit=1,file="+vars,
		"-device", "virtio-serial-pci", "-chardev", "socket,id=shell,server=on,wait=off,path="+shell, "-device", "virtserialport,chardev=shell,name="+shellPort)
	if o.Disk != nil {
		args = append(args, "-drive", cmp.Or(o.logged(), "if=none,id=disk,format=raw,cache=writeback,file="+o.Disk.Path), "-device", "virtio-blk-pci,drive=disk,bootindex=0")
	} else {
		args = append(args, "-kernel", o.UKI)
	}
	for i, tap := range o.Taps {
		args = append(args, "-netdev", fmt.Sprintf("tap,id=net%d,ifname=%s,queues=4,script=no,downscript=no", i, tap),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,addr=0x%x,mac=52:54:00:00:01:%02x,mq=on,vectors=10,romfile=", i, 16+i, i))
	}
	credentials := maps.Clone(o.Credentials)
	if credentials == nil {
		credentials = map[string]string{}
	}
	maps.Copy(credentials, shellUnit)
	for _, name := range slices.Sorted(maps.Keys(credentials)) {
		args = append(args, "-smbios", "type=11,value=io.systemd.credential.binary:"+name+"="+base64.StdEncoding.EncodeToString([]byte(credentials[name])))
	}
	return append(args, o.Devices...)
}

// logged is the disk behind a log; "": none is wanted.
func (o Options) logged() string {
	if o.Log == "" {
		return ""
	}
	return "if=none,id=disk,cache=writeback,driver=blklogwrites,file.driver=file,file.filename=" + o.Disk.Path + ",log.driver=file,log.filename=" + o.Log
}

// Console is all that the serial line has said.
func (m *Machine) Console() string { return m.console.String() }

// Type writes to the serial line.
func (m *Machine) Type(t testing.TB, keys string) {
	t.Helper()
	if _, err := io.WriteString(m.keys, keys); err != nil {
		t.Fatalf("type at the console: %v", err)
	}
}

// Says waits until the serial line has said it.
func (m *Machine) Says(t testing.TB, what string) {
	t.Helper()
	m.Eventually(t, func() string {
		if strings.Contains(m.Console(), what) {
			return ""
		}
		return fmt.Sprintf("the serial line has not said %q", what)
	})
}

// Eventually polls until ok returns "". A machine that has ended fails the test at once.
func (m *Machine) Eventually(t testing.TB, ok func() string) {
	t.Helper()
	deadline := time.Now().Add(slow)
	for {
		complaint := ok()
		if complaint == "" {
			return
		}
		select {
		case <-m.ended:
			t.Fatalf("the machine ended: %s", complaint)
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %v: %s", slow, complaint)
		}
	}
}

// Uptime is how long it has been on.
func (m *Machine) Uptime() time.Duration { return time.Since(m.started) }

// Cut takes the power away.
func (m *Machine) Cut() {
	_ = m.cmd.Process.Kill()
	<-m.ended
}

// PowerOff shuts it down as an operator would, and waits until it is off. The shell may be gone before it has answered.
func (m *Machine) PowerOff(t testing.TB) {
	t.Helper()
	m.reach(t)
	_, _, err := m.shell.ask("systemctl --no-block poweroff", slow)
	select {
	case <-m.ended:
	case <-time.After(slow):
		t.Fatalf("the machine did not switch itself off; asked to, it said: %v", err)
	}
}

// console is written by QEMU and read by tests.
type console struct {
	mu   sync.Mutex
	said bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}
