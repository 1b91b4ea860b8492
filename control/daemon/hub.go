package daemon

import (
	"context"
	"sync"
	"time"

	"sluice/control/api"
)

// waiting bounds the events that wait for one slow reader.
const waiting = 4096

// hub hands every event to everybody who listens. Publishing never blocks: a reader that does not keep up loses events,
// and is told how many.
type hub struct {
	mu        sync.Mutex
	listeners map[*listener]bool
	drops     int           // of them want dropped packets
	demand    chan struct{} // tells that drops changed
	sampling  chan struct{} // closed while dropped packets are sampled, or it is known that they cannot be
}

// listener is one stream.
type listener struct {
	drops bool
	more  chan struct{} // tells that there is something to take

	mu   sync.Mutex
	have []api.Event
	lost uint64
}

func newHub() *hub {
	return &hub{listeners: map[*listener]bool{}, demand: make(chan struct{}, 1), sampling: make(chan struct{})}
}

func (h *hub) publish(e api.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.listeners {
		if l.drops || e.Type != api.EventDrop && e.Type != api.EventUnseen {
			l.put(e)
		}
	}
}

func (l *listener) put(e api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.have) >= waiting {
		l.lost++
	} else {
		l.have = append(l.have, e)
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// take returns what has come since the last time. Lost events come last: the newest are those that found no room.
func (l *listener) take() []api.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.have
	if l.lost > 0 {
		events = append(events, api.Event{Time: time.Now(), Type: api.EventLost, Count: l.lost})
	}
	l.have, l.lost = nil, 0
	return events
}

// listen calls each for every event from now on, one at a time, until ctx ends or each returns an error.
func (h *hub) listen(ctx context.Context, drops bool, each func(api.Event) error) error {
	l := &listener{drops: drops, more: make(chan struct{}, 1)}
	h.join(l, 1)
	defer h.join(l, -1)
	if drops {
		select {
		case <-h.sampled():
		case <-ctx.Done():
			return nil
		}
	}
	if err := each(api.Event{Time: time.Now(), Type: api.EventBegin}); err != nil {
		return err
	}
	for {
		for _, e := range l.take() {
			if err := each(e); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.more:
		}
	}
}

// join adds a listener, or with -1 takes it out.
func (h *hub) join(l *listener, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n > 0 {
		h.listeners[l] = true
	} else {
		delete(h.listeners, l)
	}
	if !l.drops {
		return
	}
	h.drops += n
	select {
	case h.demand <- struct{}{}:
	default:
	}
}

// wanted says whether anybody wants dropped packets.
func (h *hub) wanted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drops > 0
}

func (h *hub) sampled() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sampling
}

// setSampling lets those begin who wait for samples, or makes the next ones wait.
func (h *hub) setSampling(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.sampling:
		if !on {
			h.sampling = make(chan struct{})
		}
	default:
		if on {
			close(h.sampling)
		}
	}
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners)
}
