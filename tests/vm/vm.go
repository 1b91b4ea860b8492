// Package vm runs an ordinary Go test binary on another kernel: Debian's 6.12 in QEMU without KVM, booted into an
// initramfs that is made for the run, with a Go program as PID 1. Nothing is installed on the host.
package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Guest says what to run.
type Guest struct {
	// Package is the import path of a test package. It is built with the tag vmguest, which keeps its tests off the host.
	Package string
	// Modules are kernel modules by name. What they depend on is loaded before them; built-in ones are fine.
	Modules []string
	// Files are put into the guest: its absolute path -> the host's path.
	Files map[string]string
	// Devices are further arguments of QEMU.
	Devices []string
	// Args follow -test.v, such as "-test.run=WireGuard".
	Args []string
	// Timeout bounds the VM, not the builds. Zero: 6 minutes, ten times what an idle machine needs.
	Timeout time.Duration
	// Memory is in MiB. Zero: 1024.
	Memory int
	// CPUs of the guest. Zero: 1. More than one needs -icount, which emulates them by turns in one thread: QEMU 7.2's
	// emulation with a thread per CPU loses the kernel's text patching at times, and the guest dies of an int3 in the
	// middle of a jump label.
	CPUs int
}

// Result is what a guest said.
type Result struct {
	Kernel string        // release of the kernel that ran
	Passed int           // top-level tests
	Output string        // the whole console
	CPU    time.Duration // of the emulator
}

// Run runs g, logs what the guest says as it comes, and fails t unless at least one test ran in the guest and every one passed.
// A skipped test is a failure. dir is Boot's.
func Run(t testing.TB, dir string, g Guest) Result {
	t.Helper()
	started := time.Now()
	r, err := bootTo(t.Context(), t.Output(), dir, g)
	if err != nil {
		t.Fatalf("%s in the VM: %v", g.Package, err)
	}
	t.Logf("%d tests of %s passed on Linux %s in %.1f s, of which %.1f s of CPU in the machine", r.Passed, g.Package, r.Kernel,
		time.Since(started).Seconds(), r.CPU.Seconds())
	return r
}

// Boot is Run outside of a test: an error says what Run would fail for. dir is for what it builds, and guests may share it one after
// the other: a program that was built for an earlier one is taken as it is.
func Boot(ctx context.Context, dir string, g Guest) (Result, error) {
	return bootTo(ctx, io.Discard, dir, g)
}

// bootTo copies what the guest says to console, as it comes.
func bootTo(ctx context.Context, console io.Writer, dir string, g Guest) (Result, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return Result{}, err
	}
	k, err := obtainKernel(ctx, filepath.Join(root, ".cache", "vm"))
	if err != nil {
		return Result{}, err
	}
	initrd, err := buildInitramfs(ctx, root, dir, k, g)
	if err != nil {
		return Result{}, err
	}
	r, err := boot(ctx, console, k.image, initrd, g)
	if err != nil {
		return r, err
	}
	return judge(r)
}

// What costs much where a processor is emulated, and tests do not ask for: copies of single bytes (erms), changes of the mode
// around each access to user memory (smap, smep, pku, umip), a fifth level of page tables (la57); zeroing of what is allocated,
// a clock that is read from a device, self-tests of ciphers. The verifier takes 12 s for the programs of a site instead of 21.
const (
	cpu        = "max,-erms,-smap,-smep,-pku,-umip,-la57"
	kernelArgs = "init_on_alloc=0 tsc=reliable cryptomgr.notests"
)

// boot returns what nobody has judged yet, of a guest that did not end in time as well.
func boot(ctx context.Context, console io.Writer, image, initrd string, g Guest) (Result, error) {
	timeout, memory := g.Timeout, g.Memory
	if timeout == 0 {
		timeout = 6 * time.Minute
	}
	if memory == 0 {
		memory = 1024
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	args := append(Emulator(g.CPUs, memory), "-serial", "stdio", "-no-reboot", "-kernel", image, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on "+kernelArgs)
	// It ends with its time, by ctx, and with this process: whoever is killed leaves no machine behind that computes on. What
	// Pdeathsig waits for is the end of the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(args, g.Devices...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	to := UnixLines(io.MultiWriter(&out, console))
	cmd.Stdout, cmd.Stderr = to, to
	err := cmd.Run()
	r := Result{Output: out.String()}
	if ended := cmd.ProcessState; ended != nil {
		r.CPU = ended.UserTime() + ended.SystemTime()
	}
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return r, fmt.Errorf("%w: install the package qemu-system-x86", err)
	case ctx.Err() != nil:
		return r, fmt.Errorf("the guest did not end within %s and was killed: %w", timeout, ctx.Err())
	case err != nil:
		return r, fmt.Errorf("qemu-system-x86_64: %w", err)
	}
	return r, nil
}

// Emulator is how QEMU's command line begins: a machine with nothing in it. Of cpus see Guest.
func Emulator(cpus, memory int) []string {
	return []string{"-accel", "tcg", "-cpu", cpu, "-smp", strconv.Itoa(max(1, cpus)), "-m", strconv.Itoa(memory),
		"-nodefaults", "-no-user-config", "-display", "none"}
}

// UnixLines takes the carriage returns of a serial console out of what is written to w.
func UnixLines(w io.Writer) io.Writer { return unixLines{w} }

type unixLines struct{ w io.Writer }

func (u unixLines) Write(p []byte) (int, error) {
	if _, err := u.w.Write(bytes.ReplaceAll(p, []byte("\r"), nil)); err != nil {
		return 0, err
	}
	return len(p), nil
}

var (
	kernelLine = regexp.MustCompile(`(?m)^VMTEST-KERNEL=(\S+)$`)
	codeLine   = regexp.MustCompile(`(?m)^VMTEST-RC=(-?\d+)$`)
	passLine   = regexp.MustCompile(`(?m)^--- PASS: `)
	skipLine   = regexp.MustCompile(`(?m)^\s*--- SKIP: (\S+)`)
)

// judge reads the console. Each way in which a run could seem good without having tested anything is an error.
func judge(r Result) (Result, error) {
	out := r.Output
	r.Passed = len(passLine.FindAllString(out, -1))
	if m := kernelLine.FindStringSubmatch(out); m != nil {
		r.Kernel = m[1]
	}
	code := codeLine.FindStringSubmatch(out)
	skipped := skipLine.FindStringSubmatch(out)
	switch {
	case code == nil:
		return r, errors.New("the guest ended without a result: it crashed, or its init failed")
	case code[1] != "0":
		return r, fmt.Errorf("the guest's tests failed with code %s", code[1])
	case skipped != nil:
		return r, fmt.Errorf("test %s was skipped in the guest, which counts as a failure", skipped[1])
	case r.Passed == 0:
		return r, errors.New("no test ran in the guest")
	}
	return r, nil
}

// moduleRoot is the directory of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// goTool runs the go command for a static binary: the guest has no libc.
func goTool(ctx context.Context, root string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
