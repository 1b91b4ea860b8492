package bfd_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bgp/bfd"
	"sluice/tests/nstest"
)

// keeperRole is a child that has the sessions held by a process of their own; behind it stands the state directory.
const keeperRole = "keeper"

// TestMain is also the main of the children, since a server makes its sockets on any thread, and of the process that a keeper starts.
func TestMain(m *testing.M) {
	var err error
	switch role, dir, _ := strings.Cut(nstest.Role(), " "); {
	case len(os.Args) == 4 && os.Args[1] == bfd.Verb:
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		err = bfd.Run(ctx, "test")
		stop()
	case role == keeperRole:
		err = keep(dir)
	case role != "":
		err = serve()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func childLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// setter is the call that sets the wanted sessions.
func setter(set func([]bfd.Config) error) nstest.Handler {
	return func(arg json.RawMessage) (any, error) {
		var wanted []bfd.Config
		if err := json.Unmarshal(arg, &wanted); err != nil {
			return nil, err
		}
		return nil, set(wanted)
	}
}

func keep(stateDir string) error {
	var mu sync.Mutex
	told := []string{}
	trouble := func(why string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, why)
	}
	k, err := bfd.NewKeeper(childLog(), stateDir, []string{"/proc/self/exe", bfd.Verb}, trouble)
	if err != nil {
		return err
	}
	return nstest.Serve(map[string]nstest.Handler{
		"set": setter(k.Set),
		"status": func(json.RawMessage) (any, error) {
			r, err := k.Report()
			return r.Sessions, err
		},
		"trouble": func(json.RawMessage) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(told), nil
		},
		"down": func(json.RawMessage) (any, error) { return nil, k.Down() },
	})
}

func serve() error {
	s, err := bfd.Listen(childLog(), true)
	if err != nil {
		return err
	}
	return nstest.Serve(map[string]nstest.Handler{
		"set": setter(s.Set),
		"listen": func(json.RawMessage) (any, error) {
			_, err := bfd.Listen(slog.Default(), true)
			return nil, err
		},
		"status":   func(json.RawMessage) (any, error) { return s.Status(), nil },
		"discards": func(json.RawMessage) (any, error) { return s.Discards(), nil },
	})
}

// The link is eth0 in both namespaces.
const link = "eth0"

// address is that of a side of the link, by the path's name.
var paths = map[string]struct{ ours, peers string }{
	"IPv4":            {"198.18.0.2", "198.18.0.1"},
	"IPv6":            {"2001:db8:1::2", "2001:db8:1::1"},
	"IPv6 link-local": {"fe80::2", "fe80::1"},
}

// site is a link with a server of ours on one side.
type site struct {
	ours, peers *nstest.NS
	server      *nstest.Child
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := newBareSite(t)
	s.server = s.ours.Child(t, "server")
	return s
}

func newBareSite(t *testing.T) *site {
	t.Helper()
	s := &site{ours: nstest.New(t), peers: nstest.New(t)}
	nstest.Veth(t, s.ours, link, s.peers, link)
	s.ours.Address(t, link, "198.18.0.2/24", "2001:db8:1::2/64", "fe80::2/64")
	s.peers.Address(t, link, "198.18.0.1/24", "2001:db8:1::1/64", "fe80::1/64")
	return s
}

// session is a wanted session over a path.
func session(path string, interval time.Duration) bfd.Config {
	c := bfd.Config{
		Local: netip.MustParseAddr(paths[path].ours), Peer: netip.MustParseAddr(paths[path].peers),
		MinTx: interval, MinRx: interval, Multiplier: 5,
	}
	if c.Peer.IsLinkLocalUnicast() {
		c.Interface = link
	}
	return c
}

func (s *site) set(t *testing.T, wanted ...bfd.Config) {
	t.Helper()
	nstest.Must[any](t, s.server, "set", wanted)
}

func (s *site) status(t *testing.T) []bfd.Status {
	t.Helper()
	return nstest.Must[[]bfd.Status](t, s.server, "status", nil)
}

// only is the one session there is.
func (s *site) only(t *testing.T) bfd.Status {
	t.Helper()
	all := s.status(t)
	if len(all) != 1 {
		t.Fatalf("%d sessions: %+v", len(all), all)
	}
	return all[0]
}

// base is the interval of most sessions.
const base = 200 * time.Millisecond

// patience is long enough for a slow start on a machine that has other work.
const patience = 30 * time.Second

// becomes waits for a state of every session, and returns how long that took.
func (s *site) becomes(t *testing.T, want bfd.State) time.Duration {
	t.Helper()
	begin := time.Now()
	nstest.Eventually(t, patience, func() string {
		for _, st := range s.status(t) {
			if st.State != want {
				return fmt.Sprintf("the session with %s is %s (%s), want %s; the peer says %s (%s); %s", st.Peer, st.State, st.Diag, want, st.RemoteState, st.RemoteDiag, st.Error)
			}
		}
		return ""
	})
	return time.Since(begin)
}

// silence drops what the peer sends by UDP, until the function it returns is called.
func (s *site) silence(t *testing.T) (end func()) {
	t.Helper()
	nft := func(rules string) {
		t.Helper()
		s.peers.Do(t, func() error {
			cmd := exec.Command("/usr/sbin/nft", "-f", "-")
			cmd.Stdin = strings.NewReader(rules)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("nft: %w: %s", err, out)
			}
			return nil
		})
	}
	nft("add table inet silence\nadd chain inet silence out { type filter hook output priority 0; }\nadd rule inet silence out udp dport 3784 drop\n")
	return func() { nft("delete table inet silence\n") }
}

// control is a control packet.
func control(state bfd.State, mine, yours uint32) []byte {
	b := []byte{1 << 5, byte(state) << 6, 3, 24}
	for _, v := range []uint32{mine, yours, 100_000, 100_000, 0} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// forge sends a control packet over a path as its peer, with a TTL.
func (s *site) forge(t *testing.T, path string, ttl int, state bfd.State, mine, yours uint32) {
	t.Helper()
	s.send(t, paths[path].peers, paths[path].ours, ttl, control(state, mine, yours))
}

// send sends a datagram from the peer's side of the link.
func (s *site) send(t *testing.T, from, to string, ttl int, b []byte) {
	t.Helper()
	s.peers.Do(t, func() error {
		index, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TTL
		address := func(text string, port int) unix.Sockaddr {
			return &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(text).As4()}
		}
		if netip.MustParseAddr(to).Is6() {
			family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
			address = func(text string, port int) unix.Sockaddr {
				return &unix.SockaddrInet6{Port: port, Addr: netip.MustParseAddr(text).As16(), ZoneId: uint32(index.Index)}
			}
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return errors.Join(unix.SetsockoptInt(fd, level, option, ttl), unix.Bind(fd, address(from, 0)), unix.Sendto(fd, b, 0, address(to, bfd.Port)))
	})
}

// discards waits until so many packets have been discarded for a reason.
func (s *site) discards(t *testing.T, reason string, want uint64) {
	t.Helper()
	nstest.Eventually(t, patience, func() string {
		return nstest.Want(reason, nstest.Must[map[string]uint64](t, s.server, "discards", nil)[reason], want)
	})
}
