package load

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"sluice/tests/bench/lane"
)

// ownNetwork are files of the network namespace that the reading thread is in.
const ownNetwork = "/proc/thread-self/"

// prepare makes TCP of both namespaces the same on every machine. BBR, some machines' default, paces each segment by a
// timer; Reno does not, and is the one that every namespace may choose. Clients may use a port again whose last
// connection is over for more than a second: CRR goes round all ports sooner than the minute of TIME_WAIT.
func prepare(client, server *lane.Namespace) error {
	for _, n := range []*lane.Namespace{client, server} {
		err := n.Do(func() error {
			return errors.Join(
				os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte("reno"), 0),
				os.WriteFile("/proc/sys/net/ipv4/tcp_tw_reuse", []byte("1"), 0))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// namespaces are the clients' and the servers', opened for a process to enter, and their counters.
type namespaces struct{ enter, counters [2]*os.File }

func open(client, server *lane.Namespace) (*namespaces, error) {
	out := &namespaces{}
	for i, n := range []*lane.Namespace{client, server} {
		err := n.Do(func() (err error) {
			if out.enter[i], err = os.Open(ownNetwork + "ns/net"); err != nil {
				return err
			}
			out.counters[i], err = os.Open(ownNetwork + "net/snmp")
			return err
		})
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
	}
	return out, nil
}

// Close closes the files.
func (n *namespaces) Close() error {
	var errs []error
	for _, f := range append(n.enter[:], n.counters[:]...) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// retransmitted is the sum of TcpRetransSegs of both. The kernel counts anew for who reads from the start.
func (n *namespaces) retransmitted() (total uint64, err error) {
	for _, f := range n.counters {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
		text, err := io.ReadAll(f)
		if err != nil {
			return 0, err
		}
		segments, err := counter(string(text), "Tcp:", "RetransSegs")
		if err != nil {
			return 0, err
		}
		total += segments
	}
	return total, nil
}

// counter finds a value in text of two lines for each protocol: names, then values.
func counter(text, protocol, name string) (uint64, error) {
	var names []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] != protocol:
		case names == nil:
			names = words
		default:
			for i := range min(len(names), len(words)) {
				if names[i] == name {
					return strconv.ParseUint(words[i], 10, 64)
				}
			}
		}
	}
	return 0, fmt.Errorf("/proc/net/snmp: no %s %s", protocol, name)
}
