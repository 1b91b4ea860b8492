package process

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// backlog is how many connections may wait to be accepted; a daemon makes two.
const backlog = 16

// Listen makes this process the one that peer credentials of the socket name: they are those of who listens.
func Listen() (net.Listener, error) {
	if err := unix.Listen(socketFD, backlog); err != nil {
		return nil, fmt.Errorf("listen on descriptor %d: %w", socketFD, err)
	}
	file := os.NewFile(socketFD, "socket")
	defer file.Close()
	return net.FileListener(file)
}

// bind makes the socket's file, over one that nobody listens on any more.
func (p Place) bind(path string) (*os.File, error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(p.Dir, 0o700); err != nil { // it may be from before
		return nil, err
	}
	if err := remove(path); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	err = at(path, func(short string) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: short}) })
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// dial connects to the socket at path; ErrNone where there is none, or nobody listens on it.
func dial(path string) (conn net.Conn, err error) {
	err = at(path, func(short string) (err error) {
		conn, err = net.DialTimeout("unix", short, answerTime)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("%w at %s", ErrNone, path)
	}
	return conn, err
}

// at calls f with a name of path that fits into the 108 bytes of a socket's address, whatever the directory's length.
func at(path string, f func(short string) error) error {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Dir(path), err)
	}
	defer unix.Close(dir)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)))
}

// credentials are those of the process at the other end: of who connected, or of who listens.
func credentials(c net.Conn) (cred *unix.Ucred, err error) {
	ctlErr := control(c, func(fd int) { cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, ctlErr)
}

// pidfdOf is a descriptor of that process (Linux 6.5). Unlike a number, it can never come to mean another one.
func pidfdOf(c net.Conn) (pidfd int, err error) {
	ctlErr := control(c, func(fd int) { pidfd, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD) })
	if err := errors.Join(err, ctlErr); err != nil {
		return -1, err
	}
	unix.CloseOnExec(pidfd)
	return pidfd, nil
}

func control(c net.Conn, f func(fd int)) error {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("not a unix socket")
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}
