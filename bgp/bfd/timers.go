package bfd

import "time"

// retime follows a change of state or configuration: the intervals of our packets, and a poll if they changed.
func (s *session) retime() {
	minTx, minRx := s.config.MinTx, s.config.MinRx
	if s.state != Up {
		minTx = max(minTx, slowStart)
	}
	changed := minTx != s.minTx || minRx != s.minRx
	s.minTx, s.minRx = minTx, minRx
	if changed {
		s.again = s.polling
		s.polling = true
	}
	s.settle()
}

// endPoll takes the answer to a poll. One that was begun before the last change says nothing about that, so another follows.
func (s *session) endPoll() {
	s.polling, s.again = s.again, false
	s.settle()
}

// settle puts the intervals into use, but for those that wait for the end of a poll.
func (s *session) settle() {
	waits := s.polling && s.state == Up
	if !waits || s.minTx < s.usedTx {
		s.usedTx = s.minTx
	}
	if !waits || s.minRx > s.usedRx {
		s.usedRx = s.minRx
	}
}

// reschedule moves the next packet when the interval has changed: a shorter one holds from the packet before (section 6.8.7).
func (s *session) reschedule(now time.Time) {
	interval := max(s.usedTx, s.remote.minRx)
	if interval == s.interval || s.sent.IsZero() {
		return
	}
	s.interval = interval
	s.next = s.sent.Add(s.jittered(interval))
	if s.next.Before(now) {
		s.next = now
	}
}

// announce is the periodic packet, now: its turn has come, or it says what the last one did not.
func (s *session) announce(now time.Time) []packet {
	s.sent, s.interval = now, max(s.usedTx, s.remote.minRx)
	s.next = now.Add(s.jittered(s.interval))
	if s.silent() {
		return nil
	}
	if s.polling {
		return []packet{s.packet(flagPoll)}
	}
	return []packet{s.packet(0)}
}

// jittered takes off 0 to 25 % at random, and at least 10 % where one lost packet is the end (section 6.8.7).
func (s *session) jittered(d time.Duration) time.Duration {
	least := 0.0
	if s.config.Multiplier == 1 {
		least = 0.10
	}
	return d - time.Duration(float64(d)*(least+(0.25-least)*s.random()))
}

// silent reports whether no periodic packets are to be sent: the peer wants none, or it asked for demand mode (section 6.8.7), or its
// discriminator is not known yet, see resume.
func (s *session) silent() bool {
	return s.remote.minRx == 0 || s.state == Up && s.remote.yours == 0 || s.remote.demand && s.state == Up && s.remote.state == Up && !s.polling
}

// detectionTime is how long the peer may be silent (section 6.8.4).
func (s *session) detectionTime() time.Duration {
	return time.Duration(s.remote.multiplier) * max(s.usedRx, s.remote.minTx)
}

// detection is when the peer is taken for dead; zero: there is none to wait for.
func (s *session) detection() time.Time {
	if s.heard.IsZero() {
		return time.Time{}
	}
	return s.heard.Add(s.detectionTime())
}
