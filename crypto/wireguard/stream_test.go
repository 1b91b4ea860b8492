package wireguard

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// stream sends a datagram every 10 ms and counts the answers, which it does not wait for.
type stream struct {
	t    *testing.T
	c    net.Conn
	stop chan struct{}
	wait sync.WaitGroup

	mu       sync.Mutex
	sent     uint64
	answered map[uint64]bool
}

const pace = 10 * time.Millisecond // 100 a second

func startStream(t *testing.T, c net.Conn) *stream {
	roomy(t, c.(*net.UDPConn))
	s := &stream{t: t, c: c, stop: make(chan struct{}), answered: map[uint64]bool{}}
	s.wait.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			s.mu.Lock()
			n := s.sent
			s.sent++
			s.mu.Unlock()
			c.Write(binary.BigEndian.AppendUint64(nil, n)) // a refusal is a loss, and counted as one
		}
	})
	go func() {
		buf := make([]byte, 100)
		for {
			n, err := c.Read(buf)
			if err != nil {
				if n == 0 && strings.Contains(err.Error(), "closed") {
					return
				}
				continue
			}
			s.mu.Lock()
			s.answered[binary.BigEndian.Uint64(buf[:8])] = true
			s.mu.Unlock()
		}
	}()
	return s
}

// goesOn waits for n more answers.
func (s *stream) goesOn(n int) {
	s.t.Helper()
	s.mu.Lock()
	base := len(s.answered)
	s.mu.Unlock()
	until(s.t, fmt.Sprintf("%d more datagrams are answered", n), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.answered) >= base+n
	})
}

// lost ends the stream, waits so long for what is under way, and tells how many were never answered, of how many.
func (s *stream) lost(patience time.Duration) (lost, of int) {
	s.t.Helper()
	close(s.stop)
	s.wait.Wait()
	deadline := time.Now().Add(patience)
	for {
		s.mu.Lock()
		lost, of = int(s.sent)-len(s.answered), int(s.sent)
		s.mu.Unlock()
		if lost == 0 || time.Now().After(deadline) {
			s.c.Close()
			return lost, of
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// lostNothing is lost that must be none.
func (s *stream) lostNothing() {
	s.t.Helper()
	lost, of := s.lost(30 * time.Second)
	s.t.Logf("%d of %d datagrams were lost", lost, of)
	if lost != 0 {
		s.t.Errorf("%d of %d datagrams were lost", lost, of)
	}
}
