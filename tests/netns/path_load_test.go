package netns

import (
	"context"
	bin "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/tests/nstest"
)

// load is what passes while the daemon is treated badly: nothing of it may be reset, and what of the datagrams is lost is told.
type load struct {
	p       *pathSite
	cancel  context.CancelFunc
	wait    sync.WaitGroup
	busy    []net.Conn // echoed bytes without end
	idle    []net.Conn // nothing, until the end
	streams []*datagrams
	web     *lab.Stream
	echoed  atomic.Int64 // bytes that came back over busy

	mu     sync.Mutex
	broken error // the first connection that broke
}

// datagrams are a stream of numbered ones, each echoed by the other end.
type datagrams struct {
	name       string
	sent, back atomic.Int64
}

// parties are both directions of a path site, and both families: who connects, and to what.
func (p *pathSite) parties() []struct {
	from, to *lab.Namespace
	at       netip.Addr
} {
	return []struct {
		from, to *lab.Namespace
		at       netip.Addr
	}{
		{p.Client, p.Workload(1), lab.Web4[0]}, {p.Client, p.Workload(1), lab.Web6[0]},
		{p.Workload(1), p.Client, lab.Client4}, {p.Workload(1), p.Client, lab.Client6},
		{p.Workload(1), p.Workload(2), lab.Web4[1]}, {p.Workload(2), p.lan, lanHost6},
	}
}

// loaded starts all of it and returns once everything flows.
func (p *pathSite) loaded() *load {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	l := &load{p: p, cancel: cancel}
	p.t.Cleanup(cancel)
	for i, a := range p.parties() {
		at := netip.AddrPortFrom(a.at, 5201)
		p.echo(a.to, at)
		p.answersBig(a.to, at)
		for range 2 {
			conn, err := p.dial(a.from, at)
			if err != nil {
				p.t.Fatal(err)
			}
			p.t.Cleanup(func() { _ = conn.Close() })
			l.busy = append(l.busy, conn)
		}
		conn, err := p.dial(a.from, at)
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { _ = conn.Close() })
		l.idle = append(l.idle, conn)
		d := &datagrams{name: fmt.Sprintf("%d: %s to %s", i, a.from.Name, at)}
		l.streams = append(l.streams, d)
		if err := l.stream(ctx, d, a.from, at); err != nil {
			p.t.Fatal(err)
		}
	}
	for _, conn := range l.busy {
		l.wait.Go(func() { l.echoes(ctx, conn) })
	}
	l.web = p.Client.StartStream(ctx, lab.Web4[0], lab.Web6[1])
	p.t.Cleanup(l.web.Stop)
	l.goesOn()
	return l
}

// echoes sends and reads the same again, in blocks that begin with their number.
func (l *load) echoes(ctx context.Context, conn net.Conn) {
	block, back := make([]byte, 8000), make([]byte, 8000)
	for n := uint64(1); ctx.Err() == nil; n++ {
		bin.BigEndian.PutUint64(block, n)
		err := conn.SetDeadline(time.Now().Add(patience))
		if err == nil {
			_, err = conn.Write(block)
		}
		if err == nil {
			_, err = io.ReadFull(conn, back)
		}
		if err == nil && bin.BigEndian.Uint64(back) != n {
			err = fmt.Errorf("block %d came back as %d", n, bin.BigEndian.Uint64(back))
		}
		if err != nil {
			l.breaks(fmt.Errorf("%s to %s: %w", conn.LocalAddr(), conn.RemoteAddr(), err))
			return
		}
		l.echoed.Add(int64(len(back)))
		time.Sleep(time.Millisecond) // the machine has other things to do
	}
}

func (l *load) breaks(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = err
	}
}

// stream sends a numbered datagram every two milliseconds and counts those that come back.
func (l *load) stream(ctx context.Context, d *datagrams, from *lab.Namespace, to netip.AddrPort) error {
	conn, err := from.Dial(ctx, "udp", to.String())
	if err != nil {
		return err
	}
	nstest.Roomy(l.p.t, conn)
	l.wait.Go(func() {
		buf := make([]byte, 100)
		for {
			if _, err := conn.Read(buf); errors.Is(err, net.ErrClosed) {
				return
			} else if err == nil {
				d.back.Add(1)
			}
		}
	})
	l.wait.Go(func() {
		defer func() { _ = conn.Close() }()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			if _, err := conn.Write(bin.BigEndian.AppendUint64(nil, uint64(d.sent.Load()))); err == nil {
				d.sent.Add(1)
			}
		}
		deadline := time.Now().Add(2 * time.Second) // for the last ones
		for d.back.Load() < d.sent.Load() && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
	})
	return nil
}

// goesOn waits until everything has gone on for a while.
func (l *load) goesOn() {
	l.p.t.Helper()
	bytes, answers := l.echoed.Load(), l.web.Answered()
	back := make([]int64, len(l.streams))
	for i, d := range l.streams {
		back[i] = d.back.Load()
	}
	eventually(l.p.t, func() error {
		if err := l.fault(); err != nil {
			l.p.t.Fatal(err)
		}
		if l.echoed.Load()-bytes < 1_000_000 || l.web.Answered()-answers < 20 {
			return fmt.Errorf("%d bytes echoed, %d requests answered", l.echoed.Load()-bytes, l.web.Answered()-answers)
		}
		for i, d := range l.streams {
			if d.back.Load()-back[i] < 100 {
				return fmt.Errorf("stream %s stands still", d.name)
			}
		}
		return nil
	})
}

func (l *load) fault() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// lost is how many datagrams did not come back so far, those on their way left out: what stays lost a moment later.
func (l *load) lost() (n int64) {
	least := int64(1 << 62)
	for range 50 { // the least of many looks has none on its way
		var missing int64
		for _, d := range l.streams {
			missing += d.sent.Load() - d.back.Load()
		}
		least = min(least, missing)
		time.Sleep(2 * time.Millisecond)
	}
	return max(least, 0)
}

// ends stops the load, tries the idle connections, and fails where anything broke. It returns what was lost of datagrams.
func (l *load) ends() (lost, sent int64) {
	l.p.t.Helper()
	l.web.Stop()
	l.cancel()
	l.wait.Wait()
	if err := l.fault(); err != nil {
		l.p.t.Errorf("a connection broke: %v", err)
	}
	for _, conn := range l.idle {
		if err := echoed(conn, 1000); err != nil {
			l.p.t.Errorf("an idle connection broke: %s to %s: %v", conn.LocalAddr(), conn.RemoteAddr(), err)
		}
	}
	if all := l.web.Between(time.Time{}, time.Now()); all.Lost != 0 {
		l.p.t.Errorf("%d of %d requests were lost, the first: %v", all.Lost, all.Sent, all.Err)
	}
	for _, d := range l.streams {
		lost, sent = lost+d.sent.Load()-d.back.Load(), sent+d.sent.Load()
	}
	return lost, sent
}

func TestUnderLoadRestartsAppliesAndUpgradesResetNothing(t *testing.T) {
	t.Parallel()
	next := buildNext(t)
	p := newPath(t, pathOptions{})
	l := p.loaded()
	phases := []struct {
		name string
		do   func()
	}{
		{"SIGTERM and a start", func() { p.terminate(); l.goesOn(); p.start() }},
		{"kill -9 and a start", func() { p.kill(); l.goesOn(); p.start() }},
		{"applies in a row", p.appliesInARow},
		{"an upgrade", func() { p.upgrades(next, l) }},
		{"applies of the new version", p.appliesInARow},
		{"a downgrade after kill -9", func() {
			roots := p.links()
			p.kill()
			p.start()
			p.exchanged(roots, p.links())
		}},
	}
	for _, phase := range phases {
		before := l.lost()
		begin := time.Now()
		n := p.moves(phase.do)
		l.goesOn()
		t.Logf("%s: %s, %d datagrams lost", phase.name, time.Since(begin).Round(time.Millisecond), l.lost()-before)
		for key, packets := range n.packets {
			if n.fates[key] == "drop" {
				t.Errorf("%s: %s counted %d", phase.name, key, packets)
			}
		}
	}
	lost, sent := l.ends()
	t.Logf("%d datagrams sent and to be echoed, %d lost", sent, lost)
	if lost != 0 {
		t.Errorf("%d of %d datagrams were lost", lost, sent)
	}
}
