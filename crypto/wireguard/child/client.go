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
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Errors that a caller may branch on.
var (
	// ErrNone says that no process answers for the tunnel.
	ErrNone = errors.New("no process answers")
	// ErrForeign says that somebody else is where our process should be.
	ErrForeign = errors.New("is not a process of Sluice's")
)

// Limits of waiting.
const (
	answerTime = 10 * time.Second // for an answer; a process that needs more is stuck
	endTime    = 2 * time.Second  // for an end in good order, then it is killed
)

// Client speaks to one process. It may be used by several goroutines.
type Client struct {
	name, path string
	pid, pidfd int
	program    string
	watchers   int // daemons that watched when the client was made

	mu   sync.Mutex
	conn net.Conn // nil: to be made by the next request
	read *bufio.Reader

	watching net.Conn      // nil before watch
	done     chan struct{} // closed when the process has ended
	quit     chan struct{} // closed by Close
	once     sync.Once
}

// PID is the process's id.
func (c *Client) PID() int { return c.pid }

// Program is the version of the binary that the process was started from; "": it is from before processes told.
func (c *Client) Program() string { return c.program }

// Done is closed as soon as the process has ended, however it did.
func (c *Client) Done() <-chan struct{} { return c.done }

// Alive says whether the process still runs.
func (c *Client) Alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// connect dials and learns who listens at path.
func (p Place) connect(name, path string) (*Client, error) {
	conn, err := dial(path)
	if err != nil {
		return nil, err
	}
	c := &Client{name: name, path: path, pidfd: -1, conn: conn, read: bufio.NewReader(conn), done: make(chan struct{}), quit: make(chan struct{})}
	if err := c.identify(p.NetNS); err != nil {
		conn.Close()
		if c.pidfd >= 0 {
			unix.Close(c.pidfd)
		}
		return nil, err
	}
	return c, nil
}

// identify asks the kernel first: a foreign listener is told nothing, least of all a key. One that does not answer is ours
// where the rest of it is, in the network namespace with the inode netns.
func (c *Client) identify(netns uint64) error {
	cred, err := credentials(c.conn)
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	c.pid = int(cred.Pid)
	foreign := fmt.Errorf("process %d, which listens on %s, %w: end it", c.pid, c.path, ErrForeign)
	if cred.Uid != 0 {
		return foreign
	}
	if c.pidfd, err = pidfdOf(c.conn); err != nil {
		return fmt.Errorf("%w at %s: %w", ErrNone, c.path, err) // it has ended meanwhile
	}
	c.conn.SetDeadline(time.Now().Add(answerTime))
	said, err := exchange(c.conn, c.read, "hello=1\n\n")
	var refused refusal
	switch fields := parse(said); {
	case errors.As(err, &refused), err == nil && fields["version"] == "":
		return foreign
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The pidfd says that the number still means who listens.
		if runs(c.pid, c.name, c.path, netns) && !ended(c.pidfd, 0) {
			return errStuck
		}
		return foreign
	case err != nil:
		return fmt.Errorf("%w at %s: %w", ErrNone, c.path, err)
	case fields["version"] != strconv.Itoa(version):
		return fmt.Errorf("%w: it speaks version %.20q of our requests, this program %d", errVersion, fields["version"], version)
	default:
		c.program = fields["program"]
		c.watchers, err = strconv.Atoi(fields["watchers"])
		return err
	}
}

// Processes of ours that only have to go: one that speaks other requests, one that hangs.
var (
	errVersion = errors.New("the process is of another version")
	errStuck   = fmt.Errorf("the process has not answered in %s", answerTime)
)

func pidfdOf(conn net.Conn) (fd int, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return -1, err
	}
	// Linux 6.5. Unlike a number, it can never come to mean another process.
	ctlErr := raw.Control(func(s uintptr) { fd, err = unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_PEERPIDFD) })
	if err := errors.Join(err, ctlErr); err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

// Get returns what the device says of itself, in the configuration protocol.
func (c *Client) Get() (string, error) { return c.ask("get=1\n\n") }

// Set writes settings in the configuration protocol. A port that is in use is unix.EADDRINUSE.
func (c *Client) Set(settings string) error { return c.do("set=1\n" + settings + "\n") }

// SetLocal sets the address that packets come from which answer nothing, and with one that is not valid leaves it to
// routes.
func (c *Client) SetLocal(a netip.Addr) error {
	if !a.IsValid() {
		return c.do("local=\n\n")
	}
	return c.do("local=" + a.String() + "\n\n")
}

// Local is what SetLocal has set.
func (c *Client) Local() (a netip.Addr, err error) {
	said, err := c.ask("hello=1\n\n")
	if text := parse(said)["local"]; err == nil && text != "" {
		a, err = netip.ParseAddr(text)
	}
	return a, err
}

// Up opens the device's UDP sockets, and does nothing where they are open.
func (c *Client) Up() error { return c.do("up=1\n\n") }

// Greet speaks to peers, by public key in hex, as if nothing were known of the way to them: those without a session
// get a handshake at once, whenever the last one was tried. Where the interface of the configured address went down or came up
// since, all peers are meant, whichever are named.
func (c *Client) Greet(keys ...string) error { return c.do("greet=1\n" + named(keys) + "\n") }

// Poke sends an empty packet to peers, by public key in hex.
func (c *Client) Poke(keys ...string) error { return c.do("poke=1\n" + named(keys) + "\n") }

// Hold keeps what is sent into the tunnel waiting, until Release and for at most d.
func (c *Client) Hold(d time.Duration) error {
	return c.do(fmt.Sprintf("hold=%d\n\n", d.Milliseconds()))
}

// Release ends Hold.
func (c *Client) Release() error { return c.do("release=1\n\n") }

func (c *Client) do(request string) error {
	_, err := c.ask(request)
	return err
}

// ask makes one request. A process that does not answer is killed: it carries no traffic either, and its end is what
// makes somebody start another.
func (c *Client) ask(request string) (said string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		if c.conn, err = dial(c.path); err != nil {
			return "", c.failed(err)
		}
		c.read = bufio.NewReader(c.conn)
	}
	c.conn.SetDeadline(time.Now().Add(answerTime))
	said, err = exchange(c.conn, c.read, request)
	if err == nil {
		return said, nil
	}
	c.conn.Close()
	c.conn = nil
	var refused refusal
	if errors.As(err, &refused) {
		return "", fmt.Errorf("process %d of tunnel %s: %w", c.pid, c.name, err)
	}
	return "", c.failed(err)
}

func (c *Client) failed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
		return fmt.Errorf("process %d of tunnel %s did not answer in %s and was killed: %w", c.pid, c.name, answerTime, err)
	}
	return fmt.Errorf("process %d of tunnel %s: %w: %w", c.pid, c.name, ErrNone, err)
}

// watch hands on what the process says, and closes done when it has ended.
func (c *Client) watch(say func(string)) error {
	conn, err := dial(c.path)
	if err != nil {
		return err
	}
	pidfd, err := unix.FcntlInt(uintptr(c.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		_, err = io.WriteString(conn, "watch=1\n")
	}
	if err != nil {
		conn.Close()
		return err
	}
	c.watching = conn
	go func() {
		defer unix.Close(pidfd)
		// The kernel closes the connection with the process.
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			say(lines.Text())
		}
		conn.Close()
		select {
		case <-c.quit:
			return
		default:
		}
		// The connection goes a moment before the TUN is let go of, which whoever comes next needs.
		if !ended(pidfd, endTime) {
			_ = end(pidfd)
		}
		close(c.done)
	}()
	return nil
}

// Close lets go of the process, which lives on.
func (c *Client) Close() {
	c.once.Do(func() {
		close(c.quit)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.conn != nil {
			c.conn.Close()
			c.conn = nil
		}
		if c.watching != nil {
			c.watching.Close()
		}
		unix.Close(c.pidfd)
	})
}

// End ends the process, waits until it is gone, and removes its files. It is a Close as well.
func (c *Client) End() error {
	defer c.Close()
	err := end(c.pidfd)
	if err != nil {
		err = fmt.Errorf("end process %d of tunnel %s: %w", c.pid, c.name, err)
	}
	return errors.Join(err, removeFiles(c.path))
}

func end(pidfd int) error {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(pidfd, signal, nil, 0); errors.Is(err, unix.ESRCH) {
			return nil
		} else if err != nil {
			return err
		}
		if ended(pidfd, endTime) {
			return nil
		}
	}
	return errors.New("it does not end")
}

// ended waits for the end of a process; a pidfd can be read from then on.
func ended(pidfd int, wait time.Duration) bool {
	deadline := time.Now().Add(wait)
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if n > 0 || err == nil || !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}
