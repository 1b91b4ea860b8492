package netns

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/control/engine"
	"sluice/crypto/keys"
)

//go:embed testdata/tunnels-gateway.yaml
var tunnelsGateway string

//go:embed testdata/tunnels-peer.yaml
var tunnelsPeer string

// innerHost is behind both tunnels.
const innerHost = "10.20.0.1"

// The peer has a second address, at which the ToR translates both ways: a wireguard-go that is asked at another address than
// that of its route answers from the latter.
const (
	directEndpoint     = "198.18.0.6:51820"
	translatedEndpoint = "198.18.7.7:51820"
)

// cut keeps packets of the first tunnel from a way, or lets them pass again.
func (s *site) cut(endpoint string, on bool) {
	s.t.Helper()
	ways := []string{"-s 198.18.0.2 -d 198.18.0.6", "-s 198.18.0.6 -d 198.18.0.2"}
	if endpoint == translatedEndpoint {
		ways = []string{"-s 198.18.0.2 -d 198.18.7.7", "-s 198.18.0.6 -d 198.18.0.5"}
	}
	word := map[bool]string{true: "-I", false: "-D"}[on]
	for _, way := range ways {
		s.must(s.ToR, fmt.Sprintf("iptables -t raw %s PREROUTING -p udp %s -m multiport --ports 51820 -j DROP", word, way))
	}
}

// newTunnels builds a site of two daemons with two tunnels between them, and waits until both are up and fra1 carries. The texts of
// oldnew are replaced in the gateway's file; prepare comes before the daemons.
func newTunnels(t *testing.T, oldnew []string, prepare ...func(*site)) *site {
	t.Helper()
	s := newBareSite(t)
	gateway, peer := tunnelsGateway, tunnelsPeer
	for _, name := range []string{"GATEWAY", "PEER"} {
		for i := 1; i <= 2; i++ {
			file := filepath.Join(s.Dir, fmt.Sprintf("%s-%d.key", strings.ToLower(name), i))
			public, err := keys.Generate(file)
			if err != nil {
				t.Fatal(err)
			}
			in := strings.NewReplacer(fmt.Sprintf("%s_KEY_%d", name, i), file, fmt.Sprintf("%s_PUBLIC_%d", name, i), public)
			gateway, peer = in.Replace(gateway), in.Replace(peer)
		}
	}
	s.must(s.ToR, "iptables -t nat -A PREROUTING -p udp -d 198.18.7.7 -j DNAT --to 198.18.0.6")
	s.must(s.ToR, "iptables -t nat -A POSTROUTING -p udp -d 198.18.0.6 -m conntrack --ctorigdst 198.18.7.7 -j SNAT --to 198.18.0.5:40000")
	s.must(s.ToR, "ip route add 203.0.113.0/24 via 198.18.0.2")
	for _, p := range prepare {
		p(s)
	}
	if err := os.WriteFile(s.Peer.File, []byte(peer), 0o600); err != nil {
		t.Fatal(err)
	}
	s.startPeer()
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(s.Peer.Daemon().Log)
			t.Logf("the peer's daemon said:\n%s", log[max(0, len(log)-3000):])
		}
	})
	s.write(edited(t, gateway, oldnew...))
	s.start()
	for _, address := range []string{"10.200.0.0", "10.200.0.2", innerHost} {
		eventually(t, func() error {
			if r := s.in(s.Gateway.Namespace, "ping", "-n", "-c1", "-W1", address); r.code != 0 {
				return fmt.Errorf("%s does not answer: %s%s", address, r.out, r.err)
			}
			return nil
		})
	}
	s.routeIs("fra1") // which is new, and takes no routes from fra2 before it has answered
	return s
}

// route is the device by which the gateway reaches the inner host.
func (s *site) route() string {
	s.t.Helper()
	fields := strings.Fields(s.must(s.Gateway.Namespace, "ip route get "+innerHost))
	return fields[slices.Index(fields, "dev")+1]
}

func (s *site) routeIs(want string) {
	s.t.Helper()
	eventually(s.t, func() error {
		if got := s.route(); got != want {
			return fmt.Errorf("%s is reached by %s, want %s", innerHost, got, want)
		}
		return nil
	})
}

// endpoint is where the device of a tunnel with one peer sends to.
func (s *site) endpoint(tunnel string) string {
	s.t.Helper()
	for _, t := range show[api.Tunnels](s, "tunnels").Tunnels {
		if t.Name == tunnel && len(t.Peers) == 1 {
			return t.Peers[0].Endpoint
		}
	}
	return ""
}

// within polls for longer than eventually does: what WireGuard or a poll needs half a minute for.
func within(t *testing.T, limit time.Duration, ok func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		err := ok()
		took := time.Since(begin)
		if err == nil {
			return took
		}
		if took > limit {
			t.Fatalf("still after %s: %v", limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *site) endpointWithin(tunnel, want string, limit time.Duration) {
	s.t.Helper()
	took := within(s.t, limit, func() error {
		if got := s.endpoint(tunnel); got != want {
			return fmt.Errorf("%s sends to %s, want %s", tunnel, got, want)
		}
		return nil
	})
	s.t.Logf("%s sends to %s after %s", tunnel, want, took.Round(100*time.Millisecond))
}

// echoes is a ping without end, 50 a second.
type echoes struct {
	s       *site
	process *lab.Process
}

func (s *site) startEchoes(from *lab.Namespace, to string) *echoes {
	s.t.Helper()
	p, err := from.Command("echoes", "ping", "-n", "-D", "-i", "0.02", to)
	if err != nil {
		s.t.Fatal(err)
	}
	return &echoes{s, p}
}

// echoLine is an answer: a router's "From ... icmp_seq=7 Destination Host Unreachable" is none.
var echoLine = regexp.MustCompile(`(?m)^\[[0-9.]+\] \d+ bytes from .*icmp_seq=(\d+) `)

// gaps are the runs of requests without an answer between the first one and the last one that was answered. Where a route moves an answer may
// overtake another, so its place in the log says nothing.
func (e *echoes) gaps() (answered int, gaps []int) {
	e.s.t.Helper()
	text, err := os.ReadFile(e.process.Log)
	if err != nil {
		e.s.t.Fatal(err)
	}
	var seqs []int
	for _, m := range echoLine.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			e.s.t.Fatal(err)
		}
		seqs = append(seqs, n)
	}
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	for i := 1; i < len(seqs); i++ {
		if missing := seqs[i] - seqs[i-1] - 1; missing > 0 {
			gaps = append(gaps, missing)
		}
	}
	return len(seqs), gaps
}

// loses waits until there are so many gaps, as an answer may still be on its way, and returns them.
func (e *echoes) loses(n int, when string) (gaps []int) {
	e.s.t.Helper()
	eventually(e.s.t, func() error {
		if _, gaps = e.gaps(); len(gaps) != n {
			return fmt.Errorf("lost %s: %v, want %d gaps", when, gaps, n)
		}
		return nil
	})
	return gaps
}

// more waits for n more answers.
func (e *echoes) more(n int) {
	e.s.t.Helper()
	base, _ := e.gaps()
	eventually(e.s.t, func() error {
		if now, _ := e.gaps(); now < base+n {
			return fmt.Errorf("%d of %d echoes answered", now-base, n)
		}
		return nil
	})
}

// events are those of tunnels that the monitor tells of.
type events struct {
	mu   sync.Mutex
	list []string
}

func (s *site) followTunnels() *events {
	s.t.Helper()
	e := &events{}
	ctx, cancel := context.WithCancel(s.t.Context())
	begun, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = s.api.Monitor(ctx, api.MonitorRequest{}, func(got api.Event) error {
			switch {
			case got.Type == api.EventBegin:
				close(begun)
			case got.Tunnel != nil:
				e.mu.Lock()
				defer e.mu.Unlock()
				e.list = append(e.list, string(got.Tunnel.Kind)+" "+got.Tunnel.Tunnel)
			}
			return nil
		})
	}()
	s.t.Cleanup(func() { cancel(); <-done })
	<-begun
	return e
}

func (e *events) has(want ...string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.list, want) {
		return fmt.Errorf("the monitor tells of %q, want %q", e.list, want)
	}
	return nil
}

func (s *site) degraded(want engine.ConditionValue, text string) {
	s.t.Helper()
	eventually(s.t, func() error {
		for _, c := range s.status().Engine.Conditions {
			if c.Type != engine.ConditionTunnels {
				continue
			}
			if c.Status == want && strings.Contains(c.Message, text) {
				return nil
			}
			return fmt.Errorf("condition %+v", c)
		}
		return errors.New("no condition")
	})
}

// nothingToDo fails unless a restarted daemon holds that everything is as it should be.
func (s *site) nothingToDo() {
	s.t.Helper()
	if r := s.sluice("plan", "-c", s.Gateway.File); r.code != 0 || !strings.Contains(r.out, "nothing to do") {
		s.t.Errorf("plan of the unchanged file:\n%s%s", r.out, r.err)
	}
}

// dns is a server in the client's namespace that says what it is told for every name.
type dns struct {
	mu      sync.Mutex
	answers []netip.Addr // nil: there is no such name
	asked   int
}

const dnsServer = "198.51.100.54"

func (s *site) startDNS(answers ...string) *dns {
	s.t.Helper()
	s.must(s.Client, "ip addr add "+dnsServer+"/24 dev eth0")
	var conn net.PacketConn
	err := s.Client.Do(func() (err error) {
		conn, err = net.ListenPacket("udp4", dnsServer+":53")
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	d := &dns{}
	d.say(answers...)
	s.t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if out, err := d.answer(buf[:n]); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return d
}

func (d *dns) say(answers ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers = nil
	for _, a := range answers {
		d.answers = append(d.answers, netip.MustParseAddr(a))
	}
}

func (d *dns) answer(query []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	if len(m.Questions) != 1 {
		return nil, errors.New("not one question")
	}
	m.Response, m.Additionals = true, nil
	q := m.Questions[0]
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
	if len(d.answers) == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range d.answers {
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return m.Pack()
}

func (d *dns) answered() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}
