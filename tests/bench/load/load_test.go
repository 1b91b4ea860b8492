package load

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sluice/tests/bench/lane"
)

var (
	here  = netip.MustParsePrefix("198.18.0.1/30")
	there = netip.MustParsePrefix("198.18.0.2/30")
	at    = netip.AddrPortFrom(there.Addr(), 7000)
)

func generator(t *testing.T) *Generator {
	t.Helper()
	g, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// wire makes two namespaces with a veth between them.
func wire(t *testing.T) (client, server *lane.Namespace) {
	t.Helper()
	for _, n := range []**lane.Namespace{&client, &server} {
		made, err := lane.NewNamespace()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { made.Close() })
		*n = made
	}
	run := func(n *lane.Namespace, args ...string) {
		t.Helper()
		if _, err := n.Run(t.Context(), "", "ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "near"
	err := server.Do(func() error {
		n, err := open(client, server)
		if err != nil {
			return err
		}
		defer n.Close()
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far", PeerNamespace: netlink.NsFd(n.enter[0].Fd())})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		n       *lane.Namespace
		link    string
		address netip.Prefix
	}{{client, "far", here}, {server, "near", there}} {
		run(end.n, "address", "add", end.address.String(), "dev", end.link)
		run(end.n, "link", "set", end.link, "up")
	}
	return client, server
}

func cpu(t *testing.T) int {
	t.Helper()
	n, err := lane.LastCPU()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRequestsAreAnsweredAndCounted(t *testing.T) {
	g := generator(t)
	client, server := wire(t)
	for _, c := range []Spec{
		{Kind: RR},
		{Kind: RR, Connections: 16},
		{Kind: RR, Connections: 3, Request: 3000, Response: 65536},
		{Kind: RR, Request: 1 << 20},
		{Kind: CRR},
		{Kind: CRR, Connections: 16},
		{Kind: CRR, Connections: 2, Request: 5000, Response: 20000},
	} {
		c.Server, c.Duration, c.CPU = at, 100*time.Millisecond, cpu(t)
		r, err := g.Run(t.Context(), client, server, c)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		t.Logf("%s %d: %+v, %.0f ns", c.Kind, c.Connections, r, r.PerOperation())
		check(t, c, r)
	}
}

// check is what must hold of every run of requests, whatever the machine does beside it.
func check(t *testing.T, s Spec, r Result) {
	t.Helper()
	if want := r.Operations * uint64(max(s.Request, 1)+max(s.Response, 1)); r.Operations == 0 || r.Bytes != want {
		t.Errorf("%s: %d operations moved %d bytes, want %d", s.Kind, r.Operations, r.Bytes, want)
	}
	if r.Wall < s.Duration || r.CPU <= 0 || r.CPU > r.Wall+r.Wall/10 || r.Softirq < 0 || r.Softirq > r.CPU {
		t.Errorf("%s: %v of one CPU, %v of it in softirqs, in %v of the clock, asked for %v", s.Kind, r.CPU, r.Softirq, r.Wall, s.Duration)
	}
	l := r.Latency
	if l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max+l.Max/50 || l.Max > r.Wall {
		t.Errorf("%s: latencies %+v", s.Kind, l)
	}
}

// TestWhatAProcessBesideDoesIsPartOfTheCost by one that is busy all the time, wherever it runs.
func TestWhatAProcessBesideDoesIsPartOfTheCost(t *testing.T) {
	g := generator(t)
	client, server := wire(t)
	busy := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = busy.Process.Kill()
		_ = busy.Wait() // it was killed
	}()
	r, err := g.Run(t.Context(), client, server, Spec{Kind: RR, Server: at, Duration: 300 * time.Millisecond, CPU: cpu(t), Beside: []int{busy.Process.Pid}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Beside <= 0 || r.Beside > r.Wall+r.Wall/10 || r.CPU <= r.Beside+r.Softirq {
		t.Errorf("%+v", r)
	}
}

func TestStreamsAreCountedByTheByte(t *testing.T) {
	g := generator(t)
	client, server := wire(t)
	for _, connections := range []int{1, 2} {
		s := Spec{Kind: Stream, Server: at, Connections: connections, Duration: 10 * time.Millisecond, CPU: cpu(t)}
		r, err := g.Run(t.Context(), client, server, s)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d: %+v, %.0f ns/MB", connections, r, r.PerMB())
		if r.Operations != 0 || r.Bytes < 1e6 || r.Wall < time.Second/2 || r.CPU <= 0 || r.CPU > r.Wall+time.Second || r.PerMB() <= 0 {
			t.Errorf("%d streams: %+v", connections, r)
		}
	}
}

func TestSessionsTakeTurnsAndAddUpTheirLatencies(t *testing.T) {
	g := generator(t)
	for _, spec := range []Spec{{Kind: RR, Connections: 4}, {Kind: CRR}} {
		spec.Server, spec.CPU = at, cpu(t)
		var sessions [2]*Session
		for i := range sessions {
			client, server := wire(t)
			var err error
			if sessions[i], err = g.Open(t.Context(), client, server, spec); err != nil {
				t.Fatal(err)
			}
		}
		var longest [2]time.Duration
		for range 5 {
			for i, s := range sessions {
				spec.Duration = 5 * time.Millisecond
				r, err := s.Run(spec.Duration)
				for errors.Is(err, ErrNothing) && spec.Duration < 10*time.Second { // on a busy machine a turn may be too short
					spec.Duration *= 2
					r, err = s.Run(spec.Duration)
				}
				if err != nil {
					t.Fatal(err)
				}
				check(t, spec, r)
				longest[i] = max(longest[i], r.Latency.Max)
			}
		}
		for i, s := range sessions {
			if l := s.Latency(); l.Max != longest[i] || l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.P999 {
				t.Errorf("%s: latencies of all %+v, the longest of each %v", spec.Kind, l, longest[i])
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestALoadWithoutAnswersEndsWithItsContext(t *testing.T) {
	g := generator(t)
	client, server := wire(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	s := Spec{Kind: RR, Server: at, Duration: time.Millisecond, CPU: cpu(t)}
	if _, err := server.Run(t.Context(), "", "ip", "neigh", "replace", here.Addr().String(), "lladdr", "02:00:00:00:00:01", "dev", "near"); err != nil {
		t.Fatal(err)
	}
	if r, err := g.Run(ctx, client, server, s); err == nil || ctx.Err() == nil {
		t.Errorf("ran though answers went astray: %+v, %v", r, err)
	}
}

func TestALoadThatCannotRunSaysWhy(t *testing.T) {
	g := generator(t)
	client, server := wire(t)
	elsewhere := netip.MustParseAddrPort("198.18.9.9:7000")
	for _, s := range []Spec{
		{Kind: "UDP_RR", Server: at},
		{Kind: RR, Server: elsewhere, Duration: time.Millisecond},
		{Kind: RR, Server: at, Connections: 1000},
		{Kind: CRR, Server: at, Response: 1 << 30},
		{Kind: RR, Server: at, CPU: 9999},
		{Kind: RR, Server: at, Beside: []int{1 << 30}},
		{Kind: Stream, Server: elsewhere},
		{Kind: Stream, Server: at, CPU: 9999},
	} {
		if r, err := g.Run(t.Context(), client, server, s); err == nil {
			t.Errorf("%+v ran: %+v", s, r)
		} else {
			t.Log(err)
		}
	}
}
