package ipsec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/process"

	"golang.org/x/sys/unix"
)

// ESP in UDP arrives at a socket that somebody must hold (RFC 3948): without one the kernel answers "port unreachable". It
// must outlive the daemon, so a process of its own has it and does nothing else. Who it is, the kernel says: it holds a lock
// on a file that is named after address and port.

// HolderVerb is the hidden verb that runs Hold.
const HolderVerb = "hold-esp-port"

const (
	udpEncap        = 100              // UDP_ENCAP of linux/udp.h
	udpEncapESP     = 2                // UDP_ENCAP_ESPINUDP
	holderPatience  = 20 * time.Second // an idle machine needs 20 ms
	holderAnswersOn = 3                // descriptor: "ready", or what is wrong
)

// Hold is the whole life of a holder; its arguments are the lock's path and address:port. program is the version of the binary,
// which the lock's file tells. It ends by SIGTERM.
func Hold(ctx context.Context, args []string, program string) error {
	answer := os.NewFile(holderAnswersOn, "answer")
	fd, err := hold(args, program)
	if err != nil {
		fmt.Fprint(answer, err)
		return err
	}
	fmt.Fprint(answer, "ready")
	answer.Close()
	stop := context.AfterFunc(ctx, func() { unix.Shutdown(fd, unix.SHUT_RD) })
	defer stop()
	buf := make([]byte, 64)
	for ctx.Err() == nil {
		// What is not ESP: keepalives, and who else knocks.
		if _, _, err := unix.Recvfrom(fd, buf, 0); err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNREFUSED) {
			break
		}
	}
	return nil
}

func hold(args []string, program string) (fd int, err error) {
	if len(args) != 2 {
		return 0, errors.New("the arguments are a lock's path and address:port")
	}
	at, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return 0, err
	}
	if err := process.Lock(args[0], program); err != nil {
		return 0, err
	}
	family, sockaddr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(at.Port()), Addr: [4]byte(at.Addr().AsSlice()[:4])})
	if at.Addr().Is6() {
		family, sockaddr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	// A tunnel may be made before its local address is there.
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
	}
	if err := unix.Bind(fd, sockaddr); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	return fd, os.NewSyscallError("setsockopt UDP_ENCAP", unix.SetsockoptInt(fd, unix.IPPROTO_UDP, udpEncap, udpEncapESP))
}

const lockPrefix = "esp-"

func (d *Driver) runDir() string { return filepath.Join(d.opts.StateDir, "run") }

// lockOf names the lock of an address and port. A colon in a path is nobody's trouble.
func (d *Driver) lockOf(local netip.AddrPort) string {
	return filepath.Join(d.runDir(), lockPrefix+netip.AddrPortFrom(local.Addr(), port(local)).String()+".lock")
}

// holds says whether a process holds the port.
func (d *Driver) holds(local netip.AddrPort) bool {
	pid, err := process.LockedBy(d.lockOf(local))
	return err == nil && pid != 0
}

// holdPorts starts the holders that are missing, and ends those of ports that no tunnel has any more. What failed is told by
// the path of the port's lock, for it concerns the tunnel that has that port and no other; "": it concerns all.
func (d *Driver) holdPorts() map[string]error {
	wanted := map[string]netip.AddrPort{}
	for _, t := range d.tunnels {
		if t.want.Name != "" && t.want.udp() {
			wanted[d.lockOf(t.want.Local)] = t.want.Local
		}
	}
	failed := map[string]error{}
	for lock, local := range wanted {
		if pid, err := process.LockedBy(lock); err != nil || pid == 0 {
			failed[lock] = d.startHolder(lock, local)
		}
	}
	locks, err := filepath.Glob(filepath.Join(d.runDir(), lockPrefix+"*.lock"))
	failed[""] = err
	for _, lock := range locks {
		if _, ok := wanted[lock]; !ok {
			failed[lock] = process.EndLocked(lock)
		}
	}
	return failed
}

// holdPort is holdPorts, of which t hears what concerns it. The keeper tells the rest.
func (d *Driver) holdPort(t Tunnel) error {
	failed := d.holdPorts()
	if !t.udp() {
		return nil
	}
	return errors.Join(failed[d.lockOf(t.Local)], failed[""])
}

// startHolder returns when the port is held.
func (d *Driver) startHolder(lock string, local netip.AddrPort) error {
	at := netip.AddrPortFrom(local.Addr(), port(local))
	if len(d.opts.Holder) == 0 {
		return fmt.Errorf("UDP encapsulation at %s: no command to hold the port is known", at)
	}
	if err := os.MkdirAll(d.runDir(), 0o700); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	command := append(d.opts.Holder[:len(d.opts.Holder):len(d.opts.Holder)], lock, at.String())
	cmd, ended, err := process.Spawn(command, nil, w) // becomes holderAnswersOn
	w.Close()
	if err != nil {
		return fmt.Errorf("hold UDP port %s: %w", at, err)
	}
	var answer []byte
	if err = r.SetReadDeadline(time.Now().Add(holderPatience)); err == nil {
		answer, err = io.ReadAll(r)
	}
	if err != nil {
		err = errors.Join(err, cmd.Process.Kill())
	}
	switch text := string(answer); {
	case err != nil:
		return fmt.Errorf("hold UDP port %s: no answer from the process that should: %w", at, err)
	case text == "ready":
		d.log.Info("UDP port of ESP held", "address", at, "pid", cmd.Process.Pid)
		return nil
	case text == "":
		select {
		case <-ended:
			return fmt.Errorf("hold UDP port %s: the process that should has ended without a word: %s", at, cmd.ProcessState)
		case <-time.After(holderPatience):
			return errors.Join(fmt.Errorf("hold UDP port %s: the process that should says nothing", at), cmd.Process.Kill())
		}
	case strings.Contains(text, unix.EADDRINUSE.Error()):
		return fmt.Errorf("%w: %s; set local.port of the tunnel, or stop the program that listens there (strongSwan's charon does)", ErrPortInUse, at)
	default:
		return explain(fmt.Errorf("hold UDP port %s: %s", at, text))
	}
}
