package api

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func capturing() *fake {
	return &fake{frames: make(chan CaptureEvent), endCapture: make(chan struct{}), gone: make(chan struct{})}
}

// take captures until the returned function is called.
func take(t *testing.T, r *running, in CaptureRequest) (events chan CaptureEvent, stop context.CancelFunc, ended chan error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	events, ended = make(chan CaptureEvent, 10), make(chan error, 1)
	go func() { ended <- r.client.Capture(ctx, in, func(e CaptureEvent) error { events <- e; return nil }) }()
	return events, stop, ended
}

func TestACaptureEndsWithItsCount(t *testing.T) {
	b := capturing()
	r := start(t, b)
	events, stop, ended := take(t, r, CaptureRequest{Reasons: []string{"banned"}, Sample: 2})
	if e := next(t, "begin", events); e.Type != CaptureBegin || e.ID != 7 {
		t.Errorf("the stream begins with %+v", e)
	}
	want := Frame{Hook: "xdp", Reason: "banned", Length: 2000, Data: []byte{0, 1, 0xff}}
	b.frames <- CaptureEvent{Type: CaptureFrame, Frame: &want}
	if e := next(t, "frame", events); e.Frame == nil || !cmp.Equal(want, *e.Frame) {
		t.Errorf("the frame came as %+v", e)
	}
	stop()
	if e := next(t, "end", events); e.Type != CaptureEnded || e.Count == nil || e.Count.Wanted != 3 {
		t.Errorf("the stream ends with %+v", e)
	}
	if err := next(t, "return", ended); err != nil {
		t.Errorf("a good end is %v", err)
	}
	if diff := cmp.Diff([]string{"capture {Fate: Reasons:[banned] Rules:[] Host: Interface: Hook: Protocol: Port:0 Sample:2 Snaplen:0 By:}",
		"end capture 7"}, b.asked); diff != "" {
		t.Errorf("the backend was asked\n%s", diff)
	}
}

func TestACaptureWhoseClientOrDaemonGoesEnds(t *testing.T) {
	b := capturing()
	r := start(t, b)
	enough := errors.New("enough")
	if err := r.client.Capture(t.Context(), CaptureRequest{}, func(CaptureEvent) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	<-b.gone

	b = capturing()
	r = start(t, b)
	events, _, ended := take(t, r, CaptureRequest{})
	next(t, "begin", events)
	if err := r.end(t); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if err := next(t, "return", ended); !errors.Is(err, ErrUnreachable) {
		t.Errorf("after the daemon's end: %v", err)
	}
}

func TestACaptureThatCannotBeginSaysWhy(t *testing.T) {
	_, _, ended := take(t, start(t, &fake{fail: &Failure{Message: "no", Refused: true}}), CaptureRequest{})
	var f *Failure
	if err := next(t, "return", ended); !errors.As(err, &f) || f.Message != "no" || !f.Refused {
		t.Errorf("got %v", err)
	}
	if status, body := raw(t, start(t, &fake{}), "POST", "capture", `{"reason": "x"}`); status != 422 {
		t.Errorf("status %d, %s", status, body)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := start(t, capturing()).client.Capture(ctx, CaptureRequest{}, func(CaptureEvent) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("of one that is over: %v", err)
	}
}
