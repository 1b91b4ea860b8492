package process

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Request is one of a daemon's. On the wire it is in the form of WireGuard's cross-platform configuration protocol: a line
// DO=VALUE, lines of key=value, an empty line. The answer is lines of the same form, the last one errno=N with N zero or a
// negative error number of Linux, and an empty line.
type Request struct {
	Do, Value string
	Body      string // lines, each with its end
}

// String keeps the body, which may hold keys, out of what is printed.
func (r Request) String() string { return r.Do }

// Lines are those of the body, without their ends.
func (r Request) Lines() []string {
	if r.Body == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(r.Body, "\n"), "\n")
}

// readRequest reads one request whole, so that none is half done when a daemon dies in the middle of it.
func readRequest(r *bufio.Reader) (Request, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return Request{}, err
	}
	var out Request
	out.Do, out.Value, _ = strings.Cut(strings.TrimSuffix(line, "\n"), "=")
	if out.Do == doWatch { // the one that has nothing behind its line
		return out, nil
	}
	var body strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return Request{}, err
		}
		if line == "\n" {
			out.Body = body.String()
			return out, nil
		}
		body.WriteString(line)
	}
}

// exchange returns what an answer says before its errno, which is the error. There is room for so many bytes before any is moved.
func exchange(conn net.Conn, r *bufio.Reader, q Request, room int) (string, error) {
	if _, err := io.WriteString(conn, q.Do+"="+q.Value+"\n"+q.Body+"\n"); err != nil {
		return "", err
	}
	var said strings.Builder
	said.Grow(room)
	for {
		line, err := r.ReadSlice('\n') // a thousand peers of a tunnel are 8,000 lines
		if errors.Is(err, bufio.ErrBufferFull) {
			said.Write(line) // the rest of a long line follows
			continue
		}
		if err != nil {
			return "", err
		}
		number, last := bytes.CutPrefix(line, []byte("errno="))
		if !last {
			said.Write(line)
			continue
		}
		n, err := strconv.Atoi(string(bytes.TrimSuffix(number, []byte("\n")))) // before line's bytes are overwritten
		if _, failed := r.ReadString('\n'); failed != nil {
			return "", failed
		}
		switch {
		case err != nil:
			return "", refusal{unix.EPROTO}
		case n != 0:
			return "", refusal{unix.Errno(-n)}
		}
		return said.String(), nil
	}
}

// Fields are the lines of an answer by key.
func Fields(answer string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(answer) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		out[key] = value
	}
	return out
}

// refusal is the errno of an answer, as opposed to one of the connection.
type refusal struct{ number unix.Errno }

func (r refusal) Error() string { return r.number.Error() }
func (r refusal) Unwrap() error { return r.number }

// code is the errno of an answer. An error may know its own, as those of WireGuard's library do.
func code(err error) int64 {
	var number unix.Errno
	var own interface{ ErrorCode() int64 }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &number):
		return -int64(number)
	case errors.As(err, &own):
		return own.ErrorCode()
	case errors.Is(err, io.EOF):
		return -int64(unix.EPROTO)
	}
	return -int64(unix.EIO)
}
