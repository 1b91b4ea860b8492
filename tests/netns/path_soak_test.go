package netns

import (
	"bytes"
	"context"
	bin "encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// soakFor is how long the churn lasts: SLUICE_SOAK, a duration such as 1h, or what `make test` has time for.
func soakFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SLUICE_SOAK")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("SLUICE_SOAK: %v", err)
	}
	return d
}

// churn makes flows without end, and counts them.
type churn struct {
	p              *pathSite
	tcp, udp, echo atomic.Int64

	mu     sync.Mutex
	failed int
	first  error
}

func (c *churn) fails(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed++; c.first == nil {
		c.first = err
	}
}

// connections opens, uses and closes one after the other; every other one ends by a RST.
func (c *churn) connections(ctx context.Context, from *lab.Namespace, to netip.AddrPort) {
	for n := 0; ctx.Err() == nil; n++ {
		conn, err := c.p.dial(from, to)
		if err == nil {
			err = echoed(conn, 2000)
			if tcp, is := conn.(interface{ SetLinger(int) error }); is && n%2 == 0 {
				err = errors.Join(err, tcp.SetLinger(0))
			}
			err = errors.Join(err, conn.Close())
		}
		if err != nil {
			c.fails(fmt.Errorf("TCP from %s to %s: %w", from.Name, to, err))
		}
		c.tcp.Add(1)
	}
}

// datagrams sends one from a new port and waits for its echo.
func (c *churn) datagrams(ctx context.Context, from *lab.Namespace, source netip.Addr, to netip.AddrPort) {
	for ctx.Err() == nil {
		var err error
		for range 3 { // one may find a full queue
			if err = c.p.asks(from, source, to, 200, time.Second); err == nil {
				break
			}
		}
		if err != nil {
			c.fails(fmt.Errorf("UDP from %s to %s: %w", from.Name, to, err))
		}
		c.udp.Add(1)
	}
}

// echoes asks with a new id each time; the kernel at the other end answers.
func (c *churn) echoes(ctx context.Context, from *lab.Namespace, source, to netip.Addr) {
	conn := c.p.rawIP(from, 1, source)
	for id := uint16(0); ctx.Err() == nil; id++ {
		rest := bin.BigEndian.AppendUint16(nil, id)
		if _, err := conn.WriteTo(icmp4(8, 0, append(rest, 0, 1, 'x', 'y')), ipAddr(to)); err != nil {
			c.fails(err)
		}
		c.echo.Add(1)
		time.Sleep(2 * time.Millisecond)
	}
}

// holdings are what the daemon and the kernel hold for it: what grows is a leak.
type holdings struct {
	pins       map[string]int // by kind
	mapBytes   uint64         // of pinned maps
	fds, rss   int            // of the daemon; the latter in MB
	goroutines int
}

func (h holdings) String() string {
	return fmt.Sprintf("pins %v, %d KB of maps, %d fds, %d goroutines, %d MB resident", h.pins, h.mapBytes>>10, h.fds, h.goroutines, h.rss)
}

// holdings counts, once nothing is under way.
func (p *pathSite) holdings() holdings {
	p.t.Helper()
	h := holdings{pins: map[string]int{}}
	for line := range strings.Lines(p.pins()) {
		if f := strings.Fields(line); f[1] != "directory" {
			h.pins[f[1]]++
			if f[1] == "map" {
				id, err := strconv.Atoi(f[2])
				if err != nil {
					p.t.Fatal(err)
				}
				h.mapBytes += mapMemory(p.t, ebpf.MapID(id))
			}
		}
	}
	pid := strconv.Itoa(p.Gateway.Daemon().PID())
	fds, err := os.ReadDir(filepath.Join("/proc", pid, "fd"))
	if err != nil {
		p.t.Fatal(err)
	}
	h.fds = len(fds)
	status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if err != nil {
		p.t.Fatal(err)
	}
	if _, rest, found := bytes.Cut(status, []byte("VmRSS:")); found {
		h.rss, _ = strconv.Atoi(string(bytes.Fields(rest)[0]))
		h.rss >>= 10
	}
	metrics, err := p.scrape()
	if err != nil {
		p.t.Fatal(err)
	}
	if h.goroutines = int(metrics["go_goroutines"]); h.goroutines == 0 {
		p.t.Fatal("the metrics do not tell of goroutines")
	}
	return h
}

// leastHoldings are those with the fewest descriptors of many looks: a spare generation that is loaded meanwhile holds hundreds.
func (p *pathSite) leastHoldings() holdings {
	p.t.Helper()
	least := p.holdings()
	for range 30 {
		time.Sleep(100 * time.Millisecond)
		if h := p.holdings(); h.fds < least.fds {
			least = h
		}
	}
	return least
}

// mapMemory is what a map takes now, in bytes; of one without preallocation that depends on its entries.
func mapMemory(t *testing.T, id ebpf.MapID) uint64 {
	t.Helper()
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	n, _ := info.Memlock()
	return n
}

func TestASoakOfShortFlowsLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	p := newPath(t, pathOptions{edit: []string{"\nworkloads:\n", "\ntelemetry: {metrics: 127.0.0.1:9750}\n\nworkloads:\n"}})
	ctx, cancel := context.WithTimeout(t.Context(), soakFor(t))
	defer cancel()
	c := &churn{p: p}
	var wait sync.WaitGroup
	for _, a := range p.parties() {
		at := netip.AddrPortFrom(a.at, 5201)
		p.echo(a.to, at)
		p.answersBig(a.to, at)
		wait.Go(func() { c.connections(ctx, a.from, at) })
		wait.Go(func() { c.datagrams(ctx, a.from, p.addressOf(a.from, a.at), at) })
	}
	wait.Go(func() { c.echoes(ctx, p.Client, lab.Client4, lab.Web4[0]) })
	wait.Go(func() { c.echoes(ctx, p.Workload(2), lab.Web4[1], lab.Client4) })
	p.appliesInARow() // spares and buffers are there from now on
	before := p.leastHoldings()
	for ctx.Err() == nil {
		p.appliesInARow()
	}
	wait.Wait()
	t.Logf("%d connections, %d datagrams, %d echoes, each a flow of its own", c.tcp.Load(), c.udp.Load(), c.echo.Load())
	if c.failed > 0 {
		t.Errorf("%d of them failed, the first: %v", c.failed, c.first)
	}
	if c.tcp.Load() < 1000 || c.udp.Load() < 1000 || c.echo.Load() < 1000 {
		t.Error("that is no churn")
	}
	p.forgets()
	eventually(t, func() error { return p.holdings().within(before) }, func() { t.Logf("before: %s\nnow:    %s", before, p.holdings()) })
	t.Logf("before: %s\nafter:  %s", before, p.holdings())
}

// within complains about what has grown.
func (h holdings) within(before holdings) error {
	switch {
	case fmt.Sprint(h.pins) != fmt.Sprint(before.pins):
		return fmt.Errorf("pins: %v, before %v", h.pins, before.pins)
	case h.mapBytes > before.mapBytes:
		return fmt.Errorf("%d bytes of maps, before %d", h.mapBytes, before.mapBytes)
	case h.fds > before.fds+5 || h.goroutines > before.goroutines+10: // connections of the API come and go
		return fmt.Errorf("%d fds and %d goroutines, before %d and %d", h.fds, h.goroutines, before.fds, before.goroutines)
	case h.rss > before.rss+64:
		return fmt.Errorf("%d MB resident, before %d", h.rss, before.rss)
	}
	return nil
}

// forgets waits until the flows have ended: no TCP flow is left but those that were closed, these and echoes time out within
// 70 s (TIMEOUT_TCP_SERVED), and the sweep takes them. UDP takes three minutes: it is waited for only where the soak is a long one.
func (p *pathSite) forgets() {
	p.t.Helper()
	count := func(protocol, state string) (int, error) {
		f, err := p.api.Flows(p.t.Context(), api.FlowsRequest{FlowFilter: api.FlowFilter{Protocol: protocol, State: state}, Count: true})
		return f.Total, err
	}
	// Soon, as the last segments may be on their way. A flow that missed its end would stay for a minute or more.
	within(p.t, 10*time.Second, func() error {
		for _, state := range []string{"established", "replied", "new", "closing"} {
			if n, err := count("tcp", state); err != nil || n > 0 {
				return fmt.Errorf("every connection was closed, and %d flows are %s: %v", n, state, err)
			}
		}
		return nil
	})
	limit := 4 * time.Minute
	if os.Getenv("SLUICE_SOAK") == "" {
		if _, err := p.api.ClearFlows(p.t.Context(), api.ClearFlowsRequest{FlowFilter: api.FlowFilter{Protocol: "udp"}}); err != nil {
			p.t.Fatal(err)
		}
		limit = 2 * time.Minute
	}
	deadline := time.Now().Add(limit)
	for {
		n, err := count("", "")
		if err == nil && n == 0 {
			return
		}
		if time.Now().After(deadline) {
			f, _ := p.api.Flows(p.t.Context(), api.FlowsRequest{Limit: 10})
			p.t.Fatalf("%d flows are left after %s: %v %+v", n, limit, err, f)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
