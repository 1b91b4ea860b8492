package process

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Client speaks to one process. It may be used by several goroutines.
type Client struct {
	of, path   string // "tunnel fra1"
	pid, pidfd int
	said       map[string]string // by identify's hello
	watchers   int               // daemons that watched when the client was made

	first, beside lane

	watching net.Conn      // nil before watch
	done     chan struct{} // closed when the process has ended
	quit     chan struct{} // closed by Close
	once     sync.Once
}

// lane is a connection, whose requests wait for one another.
type lane struct {
	mu   sync.Mutex
	conn net.Conn // nil: to be made by the next request
	read *bufio.Reader
	long map[string]int // bytes of the last answers, by what was asked: the next one mostly is as long
}

// PID is the process's id.
func (c *Client) PID() int { return c.pid }

// Program is the version of the binary that the process was started from; "": it is from before processes told.
func (c *Client) Program() string { return c.said["program"] }

// Said is what the process told of itself, by key, when the client was made: for what does not change.
func (c *Client) Said(key string) string { return c.said[key] }

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
	c := &Client{of: p.Of + " " + name, path: path, pidfd: -1, done: make(chan struct{}), quit: make(chan struct{})}
	c.first.conn, c.first.read = conn, bufio.NewReader(conn)
	if err := c.identify(p, name); err != nil {
		conn.Close()
		if c.pidfd >= 0 {
			unix.Close(c.pidfd)
		}
		return nil, err
	}
	return c, nil
}

// identify asks the kernel first: a foreign listener is told nothing, least of all a key. One that does not answer is ours
// where the rest of it is, at the place.
func (c *Client) identify(p Place, name string) error {
	conn := c.first.conn
	cred, err := credentials(conn)
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	c.pid = int(cred.Pid)
	foreign := fmt.Errorf("process %d, which listens on %s, %w: end it", c.pid, c.path, ErrForeign)
	if cred.Uid != 0 {
		return foreign
	}
	if c.pidfd, err = pidfdOf(conn); err != nil {
		return fmt.Errorf("%w at %s: %w", ErrNone, c.path, err) // it has ended meanwhile
	}
	conn.SetDeadline(time.Now().Add(answerTime))
	said, err := exchange(conn, c.first.read, Request{Do: doHello, Value: "1"}, 0)
	var refused refusal
	switch fields := Fields(said); {
	case errors.As(err, &refused), err == nil && fields["version"] == "":
		return foreign
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The pidfd says that the number still means who listens.
		if p.runs(c.pid, name, c.path) && !ended(c.pidfd, 0) {
			return errStuck
		}
		return foreign
	case err != nil:
		return fmt.Errorf("%w at %s: %w", ErrNone, c.path, err)
	case fields["version"] != strconv.Itoa(p.Version):
		return fmt.Errorf("%w: it speaks version %.20q of our requests, this program %d", errVersion, fields["version"], p.Version)
	default:
		c.said = fields
		c.watchers, err = strconv.Atoi(fields["watchers"])
		return err
	}
}

// Hello is what the process says of itself now, by key.
func (c *Client) Hello() (map[string]string, error) {
	said, err := c.Ask(Request{Do: doHello, Value: "1"})
	return Fields(said), err
}

// Do is Ask for what has no answer but an error.
func (c *Client) Do(r Request) error {
	_, err := c.Ask(r)
	return err
}

// Ask makes one request and returns the lines of its answer. What the process refuses is an unix.Errno. A process that does not
// answer is killed: it does not do its work either, and its end is what makes somebody start another.
func (c *Client) Ask(r Request) (said string, err error) { return c.ask(&c.first, r) }

// AskBeside is Ask for what is not to wait for the answers to others.
func (c *Client) AskBeside(r Request) (said string, err error) { return c.ask(&c.beside, r) }

func (c *Client) ask(l *lane, r Request) (said string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-c.quit: // what was closed is not opened again
		return "", c.failed(net.ErrClosed)
	default:
	}
	if l.conn == nil {
		if l.conn, err = dial(c.path); err != nil {
			return "", c.failed(err)
		}
		l.read = bufio.NewReader(l.conn)
	}
	if l.long == nil {
		l.long = map[string]int{}
	}
	l.conn.SetDeadline(time.Now().Add(answerTime))
	said, err = exchange(l.conn, l.read, r, l.long[r.Do]*9/8)
	if err == nil {
		l.long[r.Do] = len(said)
		return said, nil
	}
	l.close()
	var refused refusal
	if errors.As(err, &refused) {
		return "", fmt.Errorf("process %d of %s: %w", c.pid, c.of, err)
	}
	return "", c.failed(err)
}

// close is for who holds mu.
func (l *lane) close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

func (c *Client) failed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
		return fmt.Errorf("process %d of %s did not answer in %s and was killed; another one is started, apply again: %w", c.pid, c.of, answerTime, err)
	}
	// A connection goes a moment before its process: who hears of the one asks Alive next.
	select {
	case <-c.done:
	case <-c.quit:
	case <-time.After(endTime):
	}
	return fmt.Errorf("process %d of %s: %w: %w", c.pid, c.of, ErrNone, err)
}

// watch hands on what the process says, and closes done when it has ended.
func (c *Client) watch(say func(string)) error {
	conn, err := dial(c.path)
	if err != nil {
		return err
	}
	pidfd, err := unix.FcntlInt(uintptr(c.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		_, err = io.WriteString(conn, doWatch+"=1\n")
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
		// The connection goes a moment before the files are let go of, which whoever comes next needs.
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
		for _, l := range []*lane{&c.first, &c.beside} {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.close()
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
		err = fmt.Errorf("end process %d of %s: %w", c.pid, c.of, err)
	}
	return errors.Join(err, remove(c.path, logOf(c.path)))
}
