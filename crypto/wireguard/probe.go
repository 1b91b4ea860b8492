package wireguard

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sluice/crypto/wireguard/child"
)

// probes are echo requests through userspace tunnels, which their processes send. None of it waits for an apply.
type probes struct {
	nonce    uint64 // tells the answers to them
	answered func(tag uint64, at time.Time)
	refused  func(tag uint64, err error)
	by       sync.Map // of *asked, by interface
}

// asked is a process that knows how to probe.
type asked struct {
	*child.Client
	waiting atomic.Int32 // requests that it has not taken yet
}

// maxWaiting bounds what waits for a process that does not answer.
const maxWaiting = 8

var errBusy = errors.New("the tunnel's process is busy")

func newProbes(o Options) *probes {
	p := &probes{nonce: rand.Uint64(), answered: o.Answered, refused: o.Refused}
	if p.answered == nil {
		p.answered = func(uint64, time.Time) {}
	}
	if p.refused == nil {
		p.refused = func(uint64, error) {}
	}
	return p
}

// ready says that a tunnel has another process.
func (p *probes) ready(tunnel string, c *child.Client) {
	p.by.Delete(tunnel)
	if c.Probes() {
		p.by.Store(tunnel, &asked{Client: c})
	}
}

// of is the process that takes the probes of a tunnel; nil: there is none.
func (p *probes) of(tunnel string) *asked {
	if found, ok := p.by.Load(tunnel); ok && found.(*asked).Alive() {
		return found.(*asked)
	}
	return nil
}

// hear says whether a line of a process is about answers.
func (p *probes) hear(line string) bool {
	list, ok := child.Answers(line, p.nonce)
	now := time.Now()
	for _, a := range list {
		p.answered(a.Tag, now.Add(-a.Age))
	}
	return ok
}

// Probes says whether a tunnel has a process that takes its probes.
func (d *Driver) Probes(tunnel string) bool {
	return d.probes.of(tunnel) != nil
}

// Probe sends echo requests through a tunnel, all at once, and does not wait for it: Options has who is told of answers, and of what
// could not be sent. false: this is for who asks to do, by the tunnel's link; it is the kernel's, or its process knows no probes.
func (d *Driver) Probe(tunnel string, list []child.Probe) bool {
	to := d.probes.of(tunnel)
	if to == nil {
		return false
	}
	go func() {
		var refused map[uint64]error
		err := errBusy
		if to.waiting.Add(1) <= maxWaiting {
			refused, err = to.Probe(d.probes.nonce, list)
		}
		to.waiting.Add(-1)
		for _, q := range list {
			if err := cmp.Or(refused[q.Tag], err); err != nil {
				d.probes.refused(q.Tag, err)
			}
		}
	}()
	return true
}
