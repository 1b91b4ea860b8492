package engine

import (
	"context"
	"strings"
	"testing"
	"time"
)

// asking is an Alive that waits no longer than it takes to see that Run does not answer.
func asking(t *testing.T, e *Engine) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return e.Alive(ctx)
}

func TestAnEngineIsAliveWhileRunAnswers(t *testing.T) {
	_, e := running(t, "xdp.a=1")
	if err := asking(t, e); err == nil || !strings.Contains(err.Error(), "does not keep its deadlines") {
		t.Errorf("without Run: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	for range 3 {
		if err := e.Alive(t.Context()); err != nil {
			t.Errorf("while it runs: %v", err)
		}
	}
	stop()
	<-ended
}

// TestAnEngineThatHangsIsNotAlive: a step that takes its time is no hang, one that has nothing to end it is.
func TestAnEngineThatHangsIsNotAlive(t *testing.T) {
	s, e := running(t, "xdp.a=1")
	inStep, hang := make(chan struct{}), make(chan struct{})
	s.m.before = func(string, fakeOp) error { // heeds no context
		close(inStep)
		<-hang
		return nil
	}
	ended := make(chan error, 1)
	c := s.candidate("xdp.a=2")
	go func() { _, err := e.Apply(t.Context(), c, ApplyOptions{}); ended <- err }()
	<-inStep
	if err := asking(t, e); err != nil {
		t.Errorf("in a step: %v", err)
	}
	s.clock.advance(119 * time.Second)
	if err := asking(t, e); err != nil {
		t.Errorf("in a long step: %v", err)
	}
	s.clock.advance(time.Second)
	if err := asking(t, e); err == nil || !strings.Contains(err.Error(), "has not moved for 2m0s") {
		t.Errorf("in a step that hangs: %v", err)
	}
	close(hang)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
