package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice/control/engine"
)

// heard is a client of the monitor: what it is told comes on events.
func heard(t *testing.T, r *running, drops bool) (events chan Event, stop context.CancelFunc, ended chan error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	events, ended = make(chan Event, 1), make(chan error, 1)
	go func() {
		ended <- r.client.Monitor(ctx, MonitorRequest{Drops: drops}, func(e Event) error { events <- e; return nil })
	}()
	return events, stop, ended
}

func next[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s", what)
	}
	panic("unreachable")
}

func TestEventsComeAsTheyHappen(t *testing.T) {
	b := &fake{events: make(chan Event)}
	r := start(t, b)
	events, stop, ended := heard(t, r, true)
	if e := next(t, "begin", events); e.Type != EventBegin {
		t.Errorf("the stream begins with %+v", e)
	}
	for i := range 3 {
		b.events <- Event{Type: EventEngine, Engine: &engine.Notice{Kind: engine.NoticeApplied, Revision: i}}
		if e := next(t, "event", events); e.Engine == nil || e.Engine.Revision != i {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	stop()
	if err := next(t, "end", ended); !errors.Is(err, context.Canceled) {
		t.Errorf("after Ctrl-C: %v", err)
	}
	if len(b.asked) != 1 || b.asked[0] != "monitor {Drops:true Flows:false}" {
		t.Errorf("the backend was asked %q", b.asked)
	}
}

func TestStreamsEndWithTheServerEvenWhereNobodyReads(t *testing.T) {
	b := &fake{events: make(chan Event)}
	r := start(t, b)
	events, _, ended := heard(t, r, false)
	next(t, "begin", events)
	stuck := make(chan error, 1)
	begun, hold := make(chan struct{}), make(chan struct{})
	defer close(hold)
	go func() {
		client := NewClient(r.path)
		stuck <- client.Monitor(t.Context(), MonitorRequest{}, func(Event) error { close(begun); <-hold; return nil })
	}()
	next(t, "begin", begun)
	if err := r.end(t); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if err := next(t, "end", ended); !errors.Is(err, ErrUnreachable) {
		t.Errorf("the reader was told %v", err)
	}
}

func TestAMonitorThatCannotBeginSaysWhy(t *testing.T) {
	_, _, ended := heard(t, start(t, &fake{fail: &Failure{Message: "no", Refused: true}}), false)
	var f *Failure
	if err := next(t, "end", ended); !errors.As(err, &f) || f.Message != "no" || !f.Refused {
		t.Errorf("got %v", err)
	}
	if status, body := raw(t, start(t, &fake{}), "GET", "monitor?drops=perhaps", ""); status != 422 {
		t.Errorf("status %d, %s", status, body)
	}
}

func TestAReaderThatEndsTheStreamGetsItsOwnError(t *testing.T) {
	enough := errors.New("enough")
	err := start(t, &fake{}).client.Monitor(t.Context(), MonitorRequest{}, func(Event) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}
