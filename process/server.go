package process

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
)

// Requests that the server answers by itself.
const (
	doHello = "hello"
	doWatch = "watch" // its connection brings lines of the journal from then on
)

// Server answers daemons.
type Server struct {
	Version int    // of the requests. What is only added needs no new one where a daemon can do without
	Program string // version of the binary: the process goes on as what it was started from, whatever version the daemon is of
	Journal *Journal
	Answer  func(Request, io.Writer) error // lines of the answer go to the writer; what it does not know is unix.EOPNOTSUPP
	Hello   func(io.Writer)                // lines that hello has beside the server's; may be nil
}

// Serve answers whoever connects, until the listener is closed.
func (s *Server) Serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go s.serve(c)
	}
}

func (s *Server) serve(c net.Conn) {
	defer c.Close()
	// The directory keeps everybody else out; this is for one whose mode was changed.
	if cred, err := credentials(c); err != nil || cred.Uid != 0 {
		s.Journal.Sayf("a connection of another user than root was refused")
		return
	}
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	for {
		q, err := readRequest(r)
		switch {
		case err != nil:
			return
		case q.Do == doWatch:
			s.Journal.follow(c)
			return
		case q.Do == doHello:
			s.hello(w)
		default:
			err = s.Answer(q, w)
		}
		fmt.Fprintf(w, "errno=%d\n\n", code(err))
		if w.Flush() != nil || err != nil {
			return
		}
	}
}

func (s *Server) hello(w io.Writer) {
	if s.Hello != nil {
		s.Hello(w)
	}
	fmt.Fprintf(w, "version=%d\nprogram=%s\npid=%d\nwatchers=%d\n", s.Version, s.Program, os.Getpid(), s.Journal.watchers())
}
