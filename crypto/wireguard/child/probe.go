package child

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/process"
)

// answered begins a line that tells of answers: the asker's nonce and, for each, its tag and how long ago it came, µs.
const answered = "answered "

// Probe is an echo request through a tunnel.
type Probe struct {
	To  netip.Addr
	Tag uint64 // comes back with the answer
}

func (q Probe) line() string { return fmt.Sprintf("%s=%d\n", q.To, q.Tag) }

func parseProbe(line string) (q Probe, err error) {
	to, tag, _ := strings.Cut(line, "=")
	if q.To, err = netip.ParseAddr(to); err == nil {
		q.Tag, err = strconv.ParseUint(tag, 10, 64)
	}
	if q.To = q.To.Unmap(); err != nil || q.To.Zone() != "" {
		return q, unix.EINVAL
	}
	return q, nil
}

func nonceOf(n uint64) (out nonce) {
	binary.BigEndian.PutUint64(out[:], n)
	return out
}

func parseNonce(text string) (n nonce, err error) {
	if len(text) != hex.EncodedLen(len(n)) {
		return n, unix.EINVAL
	}
	if _, err := hex.Decode(n[:], []byte(text)); err != nil {
		return n, unix.EINVAL
	}
	return n, nil
}

// Probe has the process send echo requests, which leave at once and in one go, and says which it could not send. The answers come as
// lines, which Answers reads; nonce tells them from those of other daemons.
func (c *Client) Probe(nonce uint64, list []Probe) (refused map[uint64]error, err error) {
	var b strings.Builder
	for _, q := range list {
		b.WriteString(q.line())
	}
	said, err := c.AskBeside(process.Request{Do: doProbe, Value: fmt.Sprintf("%x", nonceOf(nonce)), Body: b.String()})
	for tag, number := range process.Fields(said) {
		if refused == nil {
			refused = map[uint64]error{}
		}
		t, tagErr := strconv.ParseUint(tag, 10, 64)
		n, numberErr := strconv.Atoi(number)
		if err := errors.Join(tagErr, numberErr); err != nil {
			return nil, err
		}
		refused[t] = unix.Errno(n)
	}
	return refused, err
}

// Answer is that to a Probe.
type Answer struct {
	Tag uint64
	Age time.Duration // since it came
}

// Answers reads a line that a process says. ok says whether it is about answers; there are none where they are another daemon's.
func Answers(line string, nonce uint64) (list []Answer, ok bool) {
	rest, ok := strings.CutPrefix(line, answered)
	if !ok {
		return nil, false
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 || fields[0] != fmt.Sprintf("%x", nonceOf(nonce)) {
		return nil, true
	}
	for _, f := range fields[1:] {
		tag, age, _ := strings.Cut(f, "=")
		t, tagErr := strconv.ParseUint(tag, 10, 64)
		us, ageErr := strconv.ParseInt(age, 10, 64)
		if tagErr == nil && ageErr == nil {
			list = append(list, Answer{t, time.Duration(us) * time.Microsecond})
		}
	}
	return list, true
}

// sayProbes is what hello says of Probe, which processes of older programs do not know.
func sayProbes(w io.Writer) { fmt.Fprintln(w, "probes=1") }

// Probes says whether the process knows Probe.
func (c *Client) Probes() bool { return c.Said("probes") == "1" }
