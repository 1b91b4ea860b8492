package main

import (
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sluice/control/node"
	"sluice/control/node/console"
)

func (c *cli) nodeConsoleCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "console",
		Short: "The status screen of a terminal; Enter leads to a login where the configuration enables one",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := c.client()
			defer client.Close()
			restore := silence(int(os.Stdin.Fd()))
			login, err := console.Run(cmd.Context(), console.Options{
				Client: client, Version: cmp.Or(c.image(), version), In: os.Stdin, Out: c.out, Now: c.now, Every: 2 * time.Second, Uptime: uptime,
				Login: func() bool {
					_, err := os.Stat(filepath.Join(node.Dir, node.LoginFlag))
					return err == nil
				},
			})
			restore()
			if err != nil || !login {
				return err
			}
			return agetty()
		},
	}
}

// silence has a terminal show nothing of what is typed on it.
func silence(fd int) (restore func()) {
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {} // no terminal
	}
	quiet := *before
	quiet.Lflag &^= unix.ECHO
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, &quiet)
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }
}

// agetty takes the place of this process: systemd starts the screen again once the session is over, or nobody logged in for a minute.
func agetty() error {
	path, err := exec.LookPath("agetty")
	if err != nil {
		return err
	}
	term := os.Getenv("TERM")
	if term == "" {
		term = "vt220"
	}
	return errors.Join(errors.New("agetty did not start"),
		syscall.Exec(path, []string{"agetty", "--keep-baud", "--local-line", "--timeout", "60", "115200,57600,38400,9600", "-", term}, os.Environ()))
}

func uptime() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return time.Duration(now.Nano())
}
