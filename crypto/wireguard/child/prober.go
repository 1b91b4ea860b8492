package child

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// prober is a gate that sends echo requests into the tunnel by itself, and takes the answers to them out of it. By the way through
// the TUN each of both would wake this process, and the daemon, by itself; so no program at the TUN sees them either.
type prober struct {
	*gate
	say   func(line string)
	asker atomic.Pointer[nonce] // of the daemon that asked last; nil: none did

	asking  sync.Mutex // held by one request at a time
	sources sources

	mu    sync.Mutex
	due   due
	heard []heard // not told yet, oldest first
}

// nonce tells requests of one daemon from those of every other, and from what anybody else sends.
type nonce [8]byte

type heard struct {
	tag uint64
	at  time.Time
}

// gathering is how long answers wait for others once one came: those of a thousand peers would each wake the daemon.
const gathering = 10 * time.Millisecond

// probe sends a request to each address of lines ADDR=TAG, and writes a line TAG=ERRNO for those to which it cannot.
func (p *prober) probe(from string, lines []string, w io.Writer) error {
	n, err := parseNonce(from)
	if err != nil {
		return err
	}
	p.asking.Lock()
	defer p.asking.Unlock()
	p.follow(n)
	var tags []uint64
	var packets [][]byte
	for _, line := range lines {
		q, err := parseProbe(line)
		if err != nil {
			return err
		}
		var number unix.Errno
		packet, err := p.request(n, q)
		switch {
		case err == nil:
			tags, packets = append(tags, q.Tag), append(packets, packet)
		case errors.As(err, &number):
			fmt.Fprintf(w, "%d=%d\n", q.Tag, int(number))
		default:
			return err
		}
	}
	p.expect(tags) // first: the answer may be there before inject has returned
	for _, tag := range tags[p.inject(packets):] {
		fmt.Fprintf(w, "%d=%d\n", tag, int(unix.ENOBUFS))
	}
	return nil
}

func (p *prober) expect(tags []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due.add(tags, time.Now())
}

// follow makes n the one whose answers are taken.
func (p *prober) follow(n nonce) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := p.asker.Load(); last == nil || *last != n {
		p.asker.Store(&n)
		p.heard, p.due = nil, due{}
	}
}

// request is for who holds asking.
func (p *prober) request(n nonce, q Probe) ([]byte, error) {
	from, err := p.sources.to(q.To)
	if err != nil {
		return nil, err
	}
	return echoRequest(from, q.To, n, q.Tag)
}

// Write is the gate's, but for answers, which end here.
func (p *prober) Write(bufs [][]byte, offset int) (int, error) {
	rest := bufs
	if n := p.asker.Load(); n != nil {
		rest = slices.DeleteFunc(bufs, func(b []byte) bool { return p.hear(*n, b[offset:]) })
	}
	if len(rest) == 0 {
		return len(bufs), nil
	}
	return p.gate.Write(rest, offset)
}

// hear says whether a packet is an answer, which it notes.
func (p *prober) hear(n nonce, packet []byte) bool {
	tag, ok := echoReply(packet, n)
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if *p.asker.Load() != n {
		return true // nobody waits for it any more
	}
	if !p.due.take(tag) {
		return true
	}
	if len(p.heard) == 0 {
		time.AfterFunc(gathering, p.tell)
	}
	p.heard = append(p.heard, heard{tag, time.Now()})
	return true
}

// due are the tags of requests that may still be answered, each once: the nonce is in every request, so a peer could send answers as
// fast as the line takes them, which would all be kept and told.
type due struct {
	now, before map[uint64]struct{}
	since       time.Time // of now
}

// lapse is how long an answer may take at least; after twice that it is none.
const lapse = 10 * time.Second

func (d *due) add(tags []uint64, at time.Time) {
	if d.now == nil || at.Sub(d.since) >= lapse {
		d.before, d.now, d.since = d.now, map[uint64]struct{}{}, at
	}
	for _, tag := range tags {
		d.now[tag] = struct{}{}
	}
}

func (d *due) take(tag uint64) bool {
	for _, tags := range []map[uint64]struct{}{d.now, d.before} {
		if _, ok := tags[tag]; ok {
			delete(tags, tag)
			return true
		}
	}
	return false
}

// linefuls is how many answers a line tells of: who reads it takes 64 KB at most.
const linefuls = 500

func (p *prober) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for list := range slices.Chunk(p.heard, linefuls) {
		var b strings.Builder
		fmt.Fprintf(&b, "%s%x", answered, *p.asker.Load())
		for _, h := range list {
			fmt.Fprintf(&b, " %d=%d", h.tag, now.Sub(h.at).Microseconds())
		}
		p.say(b.String())
	}
	p.heard = nil
}
