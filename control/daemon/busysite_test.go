package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/control/compile"
	"sluice/control/engine"
	"sluice/control/tunnel"
	"sluice/crypto/ipsec"
	"sluice/crypto/keys"
	"sluice/crypto/wireguard/child"
	"sluice/tests/nstest"
)

// What is a process of its own, a userspace tunnel or the holder of a port, is this test binary again.
func TestMain(m *testing.M) {
	if len(os.Args) != 4 {
		os.Exit(m.Run())
	}
	var err error
	switch os.Args[1] {
	case child.Verb:
		err = child.Run(context.Background(), os.Args[2], "test")
	case ipsec.HolderVerb:
		err = ipsec.Hold(context.Background(), os.Args[2:], "test")
	case squatVerb:
		err = squat(os.Args[2])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// slow is a subsystem that holds one word. Its step takes as long as meanwhile does.
type slow struct {
	have      string
	meanwhile func() error
}

type slowOp string

func (o slowOp) String() string { return "become " + string(o) }
func (slowOp) Teardown() bool   { return false }

func (s *slow) Observe(context.Context) (string, error) { return s.have, nil }

func (s *slow) Diff(have, want string) []slowOp {
	if have == want {
		return nil
	}
	return []slowOp{slowOp(want)}
}

func (s *slow) Apply(_ context.Context, op slowOp) error {
	if err := s.meanwhile(); err != nil {
		return err
	}
	s.have = string(op)
	return nil
}

// busySite is a daemon's tunnels and an engine that has them and a slow subsystem, ahead of them, in a namespace.
type busySite struct {
	*Daemon
	t      *testing.T
	slow   *slow
	silent atomic.Bool // nobody answers in fra1
	keys   [4]string   // the files of this end's, the other ends' public ones
	log    bytes.Buffer
	end    func() // of the watcher, after which nobody writes the log
}

func newBusySite(t *testing.T) *busySite {
	t.Helper()
	inNamespace(t)
	dir := t.TempDir()
	s := &busySite{t: t, slow: &slow{meanwhile: func() error { return nil }}}
	for i := range 4 {
		file := filepath.Join(dir, fmt.Sprint("key", i))
		public, err := keys.Generate(file)
		if err != nil {
			t.Fatal(err)
		}
		if s.keys[i] = file; i > 1 {
			s.keys[i] = public
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var err error
	s.Daemon, err = build(ctx, Options{File: filepath.Join(dir, "edge.yaml"), StateDir: dir, BPFDir: "/sys/fs/bpf/sluice-none", Log: discard,
		TunnelCommand: []string{os.Args[0], child.Verb}})
	if err != nil {
		t.Fatal(err)
	}
	store, err := engine.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	subsystems := []engine.Subsystem{engine.Bind("slow", s.slow, func(w *compile.Desired) string {
		for _, x := range w.Host.Sysctls {
			if strings.HasSuffix(x.Key, "log_martians") {
				return x.Value
			}
		}
		return ""
	})}
	for _, sub := range s.subsystems() {
		if sub.Name() == "wireguard" {
			subsystems = append(subsystems, sub)
		}
	}
	s.engine, err = engine.New(engine.Options{Subsystems: subsystems, Parse: s.parse, Compile: s.compile, Facts: s.facts, Store: store,
		Clock: s.clock, Checker: checker{s.Daemon}, Log: slog.New(slog.NewTextHandler(&s.log, nil)), Notify: func(engine.Notice) { s.tunnels.Wake() }})
	if err != nil {
		t.Fatal(err)
	}
	s.tunnels = tunnel.New(tunnel.Options{Path: filepath.Join(dir, "tunnels.json"), Wanted: s.liveTunnels, Log: discard,
		Ping: func(list []tunnel.Ping) {
			for _, p := range list {
				if p.Tunnel != "fra1" || !s.silent.Load() {
					go s.tunnels.Answered(p.Tag, time.Now())
				}
			}
		},
		Underlay: func(context.Context, []netip.Addr) (map[netip.Addr]int, error) { return nil, nil },
		Withhold: s.withhold, Changed: func(why string) error { return s.engine.Recompile(ctx, why) },
	})
	ended := make(chan error, 1)
	go func() { ended <- s.tunnels.Run(ctx) }()
	s.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		s.end()
		if err := s.wireguard.Down(context.Background()); err != nil {
			t.Error(err)
		}
		if err := s.leave(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// inNamespace leaves the test's goroutine in a namespace with a link eth0, which goes with the test.
func inNamespace(t *testing.T) {
	t.Helper()
	nstest.Enter(t)
	for _, line := range []string{"link add eth0 type veth peer name peer0", "link set eth0 up", "link set peer0 up", "addr add 198.18.0.2/30 dev eth0"} {
		nstest.IP(t, line)
	}
}

// candidate has two ways to 10.20.0.0/16, of which fra1 is the better one.
func (s *busySite) candidate(word string, metric int, more string) engine.Candidate {
	s.t.Helper()
	text := fmt.Sprintf(`
interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]
management: {accept: [{name: ssh, protocol: tcp, ports: [22]}]}
sysctls: [{key: net.ipv4.conf.eth0.log_martians, value: "%s"}]
tunnels:
  - {name: fra1, type: wireguard, local: {address: 198.18.0.2, port: 51820}, addresses: [10.200.0.1/31], health: {probe: 10.200.0.0, interval: 100ms},
     wireguard: {backend: userspace, private_key_file: %s}, peers: [{name: a, endpoints: ["198.18.0.1:51820"], public_keys: [%s], prefixes: [10.20.0.0/16%s], metric: %d}]}
  - {name: fra2, type: wireguard, local: {address: 198.18.0.2, port: 51821}, addresses: [10.200.0.3/31], health: {probe: 10.200.0.2, interval: 100ms},
     wireguard: {backend: userspace, private_key_file: %s}, peers: [{name: b, endpoints: ["198.18.0.1:51821"], public_keys: [%s], prefixes: [10.20.0.0/16, 10.40.0.0/16], metric: %d}]}
`, word, s.keys[0], s.keys[2], more, metric, s.keys[1], s.keys[3], metric+100)
	cfg, err := s.parse("/edge.yaml", []byte(text), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return engine.Candidate{Name: "/edge.yaml", Bytes: []byte(text), Config: cfg}
}

func (s *busySite) apply(c engine.Candidate) {
	s.t.Helper()
	if _, err := s.engine.Apply(s.t.Context(), c, engine.ApplyOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// routes are those into the tunnels, "PREFIX by DEVICE at METRIC".
func (s *busySite) routes() string {
	s.t.Helper()
	var out []string
	for line := range strings.Lines(nstest.IP(s.t, "-4 route show proto 187")) {
		f := strings.Fields(line)
		out = append(out, fmt.Sprintf("%s by %s at %s", f[0], f[2], f[len(f)-1]))
	}
	return strings.Join(out, ", ")
}

func (s *busySite) routesAre(when, want string) {
	s.t.Helper()
	if got := s.routes(); got != want {
		s.t.Errorf("%s the routes are\n%s, want\n%s", when, got, want)
	}
}

// until polls for at most 20 seconds.
func (s *busySite) until(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("after 20 s still not: %s; the routes are %s", what, s.routes())
		}
	}
}

// answered waits until both peers have answered, and are up.
func (s *busySite) answered() {
	s.t.Helper()
	s.until("probes are answered", func() bool {
		up := 0
		for _, w := range s.tunnels.Status() {
			if b := w.Peers[0].Probe; b != nil && b.Sent > b.Lost {
				up++
			}
		}
		return up == 2
	})
}

// compiledAs says whether the engine itself wants that many routes into fra1.
func (s *busySite) compiledAs(routes int) func() bool {
	return func() bool {
		for _, t := range s.liveDesired().WireGuard.Tunnels {
			if t.Name == "fra1" {
				return len(t.Routes) == routes
			}
		}
		return false
	}
}
