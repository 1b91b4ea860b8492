package daemon

import (
	"context"
	"sync"
	"time"

	"sluice/control/api"
)

// waiting bounds the events that wait for one slow reader.
const waiting = 4096

// stream is a kind of events that is made only while somebody wants it.
type stream int

const (
	dropStream stream = iota // samples of dropped packets
	flowStream               // what becomes of flows
	streams
)

// streamOf is -1 for what everybody hears.
func streamOf(e api.Event) stream {
	switch {
	case e.Type == api.EventFlow, e.Type == api.EventUnseen && e.Text == api.UnseenFlows:
		return flowStream
	case e.Type == api.EventDrop, e.Type == api.EventUnseen:
		return dropStream
	}
	return -1
}

// hub hands every event to everybody who listens. Publishing never blocks: a reader that does not keep up loses events,
// and is told how many.
type hub struct {
	mu        sync.Mutex
	listeners map[*listener]bool
	made      [streams]made
}

// made is what a hub knows of a stream.
type made struct {
	listeners int           // that want it
	demand    chan struct{} // tells that listeners changed
	begun     chan struct{} // closed while its events are made, or it is known that they cannot be
}

// listener is one reader.
type listener struct {
	wants [streams]bool
	more  chan struct{} // tells that there is something to take

	mu   sync.Mutex
	have []api.Event
	lost uint64
}

func newHub() *hub {
	h := &hub{listeners: map[*listener]bool{}}
	for i := range h.made {
		h.made[i] = made{demand: make(chan struct{}, 1), begun: make(chan struct{})}
	}
	return h
}

func (h *hub) publish(e api.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	of := streamOf(e)
	for l := range h.listeners {
		if of < 0 || l.wants[of] {
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
func (h *hub) listen(ctx context.Context, wants [streams]bool, each func(api.Event) error) error {
	l := &listener{wants: wants, more: make(chan struct{}, 1)}
	h.join(l, 1)
	defer h.join(l, -1)
	for s, wanted := range wants {
		if !wanted {
			continue
		}
		select {
		case <-h.begun(stream(s)):
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
	for i, wanted := range l.wants {
		if !wanted {
			continue
		}
		h.made[i].listeners += n
		select {
		case h.made[i].demand <- struct{}{}:
		default:
		}
	}
}

// wanted says whether anybody wants a stream.
func (h *hub) wanted(s stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.made[s].listeners > 0
}

// demand tells that wanted may have changed.
func (h *hub) demand(s stream) <-chan struct{} { return h.made[s].demand }

func (h *hub) begun(s stream) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.made[s].begun
}

// setBegun lets those begin who wait for a stream, or makes the next ones wait.
func (h *hub) setBegun(s stream, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.made[s].begun:
		if !on {
			h.made[s].begun = make(chan struct{})
		}
	default:
		if on {
			close(h.made[s].begun)
		}
	}
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners)
}
