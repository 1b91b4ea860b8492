package wireguard

import (
	"context"
	"fmt"
	"sync"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// question is what a device was asked: its state.
type question struct {
	name string
	done chan struct{} // closed with the answer
	have *wgtypes.Device
	err  error
}

// asks are the processes of tunnels that were asked and have not answered: whoever comes meanwhile waits for the same answer.
type asks struct {
	mu   sync.Mutex
	open map[string]*question
}

// begin asks a process, which may be waited for without the driver's lock.
func (s *asks) begin(name string, state func() (*wgtypes.Device, error)) *question {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.open[name]; a != nil {
		return a
	}
	a := &question{name: name, done: make(chan struct{})}
	s.open[name] = a
	go func() {
		a.have, a.err = state()
		s.mu.Lock()
		delete(s.open, name)
		s.mu.Unlock()
		close(a.done)
	}()
	return a
}

// answered is a question to who answers at once.
func answered(have *wgtypes.Device, err error) *question {
	a := &question{done: make(chan struct{}), have: have, err: err}
	close(a.done)
	return a
}

func (a *question) wait(ctx context.Context) {
	select {
	case <-a.done:
	case <-ctx.Done():
	}
}

// answer is nil without an error where nothing runs.
func (a *question) answer() (*wgtypes.Device, error) {
	select {
	case <-a.done:
		return a.have, a.err
	default:
		return nil, fmt.Errorf("process of tunnel %s did not answer in %s", a.name, statusTime)
	}
}
