package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice/control/api"
)

// reader is a stream of a hub; what it reads comes on events.
type reader struct {
	events chan api.Event
	ended  chan error
	stop   context.CancelFunc
}

func read(t *testing.T, h *hub, wanted ...stream) *reader {
	t.Helper()
	var wants [streams]bool
	for _, s := range wanted {
		wants[s] = true
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &reader{events: make(chan api.Event), ended: make(chan error, 1), stop: stop}
	go func() {
		r.ended <- h.listen(ctx, wants, func(e api.Event) error {
			select {
			case r.events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return r
}

func (r *reader) next(t *testing.T) api.Event {
	t.Helper()
	select {
	case e := <-r.events:
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
		return api.Event{}
	}
}

func (r *reader) want(t *testing.T, kind api.EventType) api.Event {
	t.Helper()
	e := r.next(t)
	if e.Type != kind || e.Time.IsZero() {
		t.Errorf("got %+v, want a %s with its time", e, kind)
	}
	return e
}

func TestEveryReaderHearsWhatItAskedFor(t *testing.T) {
	h := newHub()
	h.setBegun(dropStream, true)
	h.setBegun(flowStream, true)
	all, plain, flows := read(t, h, dropStream), read(t, h), read(t, h, flowStream)
	all.want(t, api.EventBegin)
	plain.want(t, api.EventBegin)
	flows.want(t, api.EventBegin)
	h.publish(api.Event{Type: api.EventDrop})
	h.publish(api.Event{Type: api.EventFlow})
	h.publish(api.Event{Type: api.EventUnseen, Count: 4, Text: api.UnseenFlows})
	h.publish(api.Event{Type: api.EventUnseen, Count: 3})
	h.publish(api.Event{Type: api.EventBGP})
	all.want(t, api.EventDrop)
	all.want(t, api.EventUnseen)
	all.want(t, api.EventBGP)
	plain.want(t, api.EventBGP)
	flows.want(t, api.EventFlow)
	if e := flows.want(t, api.EventUnseen); e.Count != 4 {
		t.Errorf("a reader of flows was told of drops: %+v", e)
	}
	flows.want(t, api.EventBGP)
	flows.stop()
	<-flows.ended
	if h.count() != 2 || !h.wanted(dropStream) {
		t.Errorf("%d readers, drops wanted: %v", h.count(), h.wanted(dropStream))
	}
	all.stop()
	if err := <-all.ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if h.count() != 1 || h.wanted(dropStream) {
		t.Errorf("then %d readers, drops wanted: %v", h.count(), h.wanted(dropStream))
	}
	plain.stop()
	<-plain.ended
}

func TestDropsBeginWhenTheyAreSampled(t *testing.T) {
	h := newHub()
	r := read(t, h, dropStream)
	<-h.demand(dropStream)
	if !h.wanted(dropStream) {
		t.Error("nobody wants drops")
	}
	h.publish(api.Event{Type: api.EventBGP}) // before the beginning, and not lost
	select {
	case e := <-r.events:
		t.Errorf("began with %+v before anything was sampled", e)
	default:
	}
	h.setBegun(dropStream, true)
	r.want(t, api.EventBegin)
	r.want(t, api.EventBGP)
	h.setBegun(dropStream, false)
	late := read(t, h, dropStream)
	late.stop() // while it waits
	if err := <-late.ended; err != nil {
		t.Error(err)
	}
	r.stop()
	<-r.ended
}

func TestASlowReaderHoldsNobodyUpAndIsToldWhatItMissed(t *testing.T) {
	h := newHub()
	slow, quick := read(t, h), read(t, h)
	slow.want(t, api.EventBegin)
	quick.want(t, api.EventBegin)
	const told = 3 * waiting
	got := 0
	for range told {
		h.publish(api.Event{Type: api.EventBGP})
		quick.want(t, api.EventBGP)
		got++
	}
	var heard, lost uint64
	for heard+lost < told {
		switch e := slow.next(t); e.Type {
		case api.EventLost:
			lost += e.Count
		default:
			heard++
		}
	}
	// At most two bounds' worth: what it took before it stood still, and what then waited for it.
	if heard+lost != told || lost == 0 || heard > 2*waiting {
		t.Errorf("of %d events it heard %d and was told that it lost %d", told, heard, lost)
	}
	slow.stop()
	quick.stop()
}
