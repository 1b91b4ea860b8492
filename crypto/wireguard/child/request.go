package child

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// exchange returns what an answer says before its errno, which is the error.
func exchange(conn net.Conn, r *bufio.Reader, request string) (string, error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return "", err
	}
	var said strings.Builder
	for {
		line, err := r.ReadSlice('\n') // a thousand peers are 8,000 lines
		if err != nil {
			return "", err
		}
		number, last := bytes.CutPrefix(line, []byte("errno="))
		if !last {
			said.Write(line)
			continue
		}
		n, malformed := strconv.Atoi(string(bytes.TrimSuffix(number, []byte("\n"))))
		if _, err := r.ReadString('\n'); err != nil {
			return "", err
		}
		switch {
		case malformed != nil:
			return "", refusal{unix.EPROTO}
		case n != 0:
			return "", refusal{unix.Errno(-n)}
		}
		return said.String(), nil
	}
}

func parse(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		out[key] = value
	}
	return out
}

// refusal is the errno of an answer, as opposed to one of the connection.
type refusal struct{ number unix.Errno }

func (r refusal) Error() string { return r.number.Error() }
func (r refusal) Unwrap() error { return r.number }

func named(keys []string) string {
	var b strings.Builder
	for _, k := range keys {
		b.WriteString("public_key=" + k + "\n")
	}
	return b.String()
}
