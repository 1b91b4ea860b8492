// Command init is PID 1 of a test VM: it mounts, loads modules, runs the payload, tells its exit code on the console
// and switches the machine off.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Println("init:", err)
	}
	fmt.Printf("\nVMTEST-RC=%d\n", code)
	// Wait until the serial line has sent it all (tcdrain), then the machine may go.
	unix.IoctlSetInt(int(os.Stdout.Fd()), unix.TCSBRK, 1)
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	// PID 1 may not return: that is a panic, which ends the VM as well.
}

func run() (code int, err error) {
	const failed = 125
	var begin unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &begin); err != nil {
		return failed, err
	}
	if err := mountAll(); err != nil {
		return failed, err
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return failed, err
	}
	fmt.Printf("VMTEST-KERNEL=%s\n", unix.ByteSliceToString(uname.Release[:]))
	if err := loadModules(); err != nil {
		return failed, err
	}
	args, err := os.ReadFile("/args")
	if err != nil {
		return failed, err
	}
	cmd := exec.Command("/payload", strings.Split(string(args), "\n")...)
	cmd.Dir = "/tmp"
	cmd.Env = []string{"HOME=/tmp", "TMPDIR=/tmp", "PATH=/bin",
		fmt.Sprintf("VMTEST_INIT=%d", begin.Nano())} // when the kernel was done, in nanoseconds since it began
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return failed, err
	}
	return 0, nil
}

func mountAll() error {
	mounts := []struct{ fstype, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
		{"bpf", "/sys/fs/bpf"}, {"cgroup2", "/sys/fs/cgroup"},
	}
	for _, m := range mounts {
		// Directories below /sys are the kernel's.
		if err := os.MkdirAll(m.dir, 0o755); err != nil && !strings.HasPrefix(m.dir, "/sys/") {
			return err
		}
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.dir, err)
		}
	}
	return nil
}

// loadModules takes the files by name: they carry the order of their dependencies.
func loadModules() error {
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}
