package child

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
)

// version is that of the requests below. A daemon replaces a process that speaks another one; what is only added, as program was,
// needs no new one where a daemon can do without.
const version = 2

// maxHold bounds how long packets are held without another request.
const maxHold = 10 * time.Second

// server answers daemons. Requests and answers are WireGuard's cross-platform configuration protocol, get and set, and
// a few more in its form: a line that says what, lines of key=value, an empty line; then answers in the same form, the
// last one errno=N with N zero or a negative error number of Linux.
type server struct {
	program string // version of the binary
	dev     *device.Device
	udp     *bind
	gate    *gate
	says    *journal
	greeter *greeter
}

func (s *server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go s.serve(c)
	}
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	// The directory keeps everybody else out; this is for one whose mode was changed.
	if cred, err := credentials(c); err != nil || cred.Uid != 0 {
		s.says.sayf("a connection of another user than root was refused")
		return
	}
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	for {
		what, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if what == "watch=1\n" {
			s.says.follow(c)
			return
		}
		err = s.answer(what, r, w)
		fmt.Fprintf(w, "errno=%d\n\n", code(err))
		// What is left of a request that failed cannot be told from the next one.
		if w.Flush() != nil || err != nil {
			return
		}
	}
}

func (s *server) answer(what string, r *bufio.Reader, w *bufio.Writer) error {
	if what == "set=1\n" {
		return s.dev.IpcSetOperation(r)
	}
	lines, err := body(r)
	if err != nil {
		return err
	}
	key, value, _ := strings.Cut(strings.TrimSuffix(what, "\n"), "=")
	switch key {
	case "get":
		return s.dev.IpcGetOperation(w)
	case "local":
		a, err := netip.ParseAddr(value)
		if value != "" && err != nil {
			return unix.EINVAL
		}
		s.udp.setLocal(a)
		return nil
	case "hello":
		if a := s.udp.local.Load(); a != nil && a.IsValid() {
			fmt.Fprintf(w, "local=%s\n", a)
		}
		_, err := fmt.Fprintf(w, "version=%d\nprogram=%s\npid=%d\nwatchers=%d\n", version, s.program, os.Getpid(), s.says.watchers())
		return err
	case "up":
		return s.dev.Up()
	case "greet":
		if s.udp.look() {
			return s.greeter.greetAll()
		}
		return s.greeter.greet(lines)
	case "poke":
		return s.greeter.poke(lines)
	case "hold":
		ms, err := strconv.Atoi(value)
		if d := time.Duration(ms) * time.Millisecond; err == nil && d > 0 && d <= maxHold {
			s.gate.hold(d)
			return nil
		}
		return unix.EINVAL
	case "release":
		s.gate.release()
		return nil
	}
	return unix.EOPNOTSUPP
}

// body reads the lines of a request up to the empty one.
func body(r *bufio.Reader) (lines []string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line == "\n" {
			return lines, nil
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
}

// code is the errno of an answer.
func code(err error) int64 {
	var ipc *device.IPCError
	var number unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &number):
		return -int64(number)
	case errors.As(err, &ipc):
		return ipc.ErrorCode()
	case errors.Is(err, io.EOF):
		return -int64(unix.EPROTO)
	}
	return -int64(unix.EIO)
}

// credentials are those of the process at the other end: of who connected, or of who listens.
func credentials(c net.Conn) (cred *unix.Ucred, err error) {
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a unix socket")
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, ctlErr)
}
