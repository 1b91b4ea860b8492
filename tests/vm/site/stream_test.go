//go:build vmguest

package site

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"sluice/cmd/lab"
)

// marker is in everything that goes through the tunnels, and in nothing else.
const marker = "sluice-inner-marker-0123456789"

// echo answers at UDP port 7 of an address of the peer.
func (s *site) echo(address string) {
	s.t.Helper()
	var c net.PacketConn
	eventually(s.t, func() error { // the daemon sets the address
		return s.Peer.Do(func() (err error) {
			c, err = net.ListenPacket("udp4", net.JoinHostPort(address, "7"))
			return err
		})
	})
	s.t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
}

// stream is numbered datagrams at a rate, whether or not anything answers.
type stream struct {
	t     *testing.T
	c     net.Conn
	every time.Duration
	stop  chan struct{}
	wait  sync.WaitGroup

	mu       sync.Mutex
	answered []bool // by number
	last     int    // number that was answered, the highest; -1: none was
	looked   int    // number from which on lost looks
}

// startStream sends a hundred a second.
func (s *site) startStream(from *lab.Namespace, to string) *stream {
	s.t.Helper()
	return s.startStreamEvery(10*time.Millisecond, from, to)
}

func (s *site) startStreamEvery(every time.Duration, from *lab.Namespace, to string) *stream {
	s.t.Helper()
	c, err := from.Dial(s.t.Context(), "udp4", net.JoinHostPort(to, "7"))
	if err != nil {
		s.t.Fatal(err)
	}
	f := &stream{t: s.t, c: c, every: every, stop: make(chan struct{}), last: -1}
	f.wait.Go(f.send)
	f.wait.Go(f.receive)
	s.t.Cleanup(func() {
		close(f.stop)
		c.Close()
		f.wait.Wait()
	})
	return f
}

func (f *stream) send() {
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for number := 0; ; number++ {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		f.mu.Lock()
		f.answered = append(f.answered, false)
		f.mu.Unlock()
		_, _ = f.c.Write(binary.BigEndian.AppendUint64([]byte(marker), uint64(number))) // a refusal is a loss, and counted as one
	}
}

func (f *stream) receive() {
	buf := make([]byte, 100)
	for {
		n, err := f.c.Read(buf)
		select {
		case <-f.stop:
			return
		default:
		}
		if err != nil || n != len(marker)+8 {
			continue // an ICMP error is read as one
		}
		f.mu.Lock()
		if number := int(binary.BigEndian.Uint64(buf[len(marker):])); number < len(f.answered) && !f.answered[number] {
			f.answered[number] = true
			f.last = max(f.last, number)
		}
		f.mu.Unlock()
	}
}

// more waits until n more are answered, of those that are sent from now on.
func (f *stream) more(n int) time.Duration {
	f.t.Helper()
	f.mu.Lock()
	from := len(f.answered)
	f.mu.Unlock()
	return eventually(f.t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		got := 0
		for _, yes := range f.answered[from:] {
			if yes {
				got++
			}
		}
		if got < n {
			return fmt.Errorf("%d of %d datagrams are answered", got, n)
		}
		return nil
	})
}

// sends waits until n more are sent, answered or not.
func (f *stream) sends(n int) {
	f.t.Helper()
	f.mu.Lock()
	from := len(f.answered)
	f.mu.Unlock()
	eventually(f.t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if got := len(f.answered) - from; got < n {
			return fmt.Errorf("%d of %d datagrams are sent", got, n)
		}
		return nil
	})
}

// lost are the runs without an answer among those that were sent since the last look, up to the last that was answered.
func (f *stream) lost() (gaps []int, of int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gap := 0
	for _, yes := range f.answered[f.looked:max(f.looked, f.last+1)] {
		of++
		if !yes {
			gap++
		} else if gap > 0 {
			gaps, gap = append(gaps, gap), 0
		}
	}
	f.looked += of
	return gaps, of
}

// logLost tells of what was lost since the last look.
func (f *stream) logLost(when string) (gaps []int) {
	f.t.Helper()
	gaps, of := f.lost()
	f.t.Logf("lost %s: %v of %d datagrams, one each %s", when, gaps, of, f.every)
	return gaps
}

// lostNothing since the last look.
func (f *stream) lostNothing(when string) {
	f.t.Helper()
	if gaps := f.logLost(when); len(gaps) > 0 {
		f.t.Errorf("lost %s: %v", when, gaps)
	}
}

// lostAtMost since the last look, in one piece.
func (f *stream) lostAtMost(limit time.Duration, when string) {
	f.t.Helper()
	if gaps := f.logLost(when); len(gaps) != 1 || gaps[0] > int(limit/f.every) {
		f.t.Errorf("lost %s: %v, want one gap of %s at most", when, gaps, limit)
	}
}

// neverInClear ends the capture of the gateway's uplink. It has seen what is sent last, in clear, to an address of nobody's
// tunnel: so it is not blind.
func (s *site) neverInClear() {
	s.t.Helper()
	c, err := s.Gateway.Dial(s.t.Context(), "udp4", "198.51.100.10:7")
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(marker)); err != nil {
		s.t.Fatal(err)
	}
	seen, err := s.wire.Stop()
	if err != nil || seen.Missed != 0 {
		s.t.Fatalf("the capture has lost frames: %+v, %v", seen, err)
	}
	// The client answers with an ICMP error that quotes it.
	if clear := seen.Markers[0]; clear == 0 || clear > 2 {
		s.t.Errorf("%d frames with the marker on the wire, want the last one that was sent in clear, and the error that quotes it:\n%s", clear, seen.Marked)
	}
	s.t.Logf("%d frames on the wire", seen.Frames)
}
