package bfd

import "time"

// slowStart is the least desired min TX interval while a session is not up (RFC 5880 section 6.8.3).
const slowStart = time.Second

// session is the state machine of RFC 5880 section 6.8. It has no socket and no clock: who calls it says what time it is
// and sends what it returns. Names in comments are those of section 6.8.1.
type session struct {
	config      Config
	independent bool           // C of our packets
	random      func() float64 // uniform in [0, 1)

	state State // bfd.SessionState
	diag  Diag  // bfd.LocalDiag
	mine  uint32
	minTx time.Duration // bfd.DesiredMinTxInterval, which our packets carry
	minRx time.Duration // bfd.RequiredMinRxInterval
	// What transmission and detection go by: while the session is up, a longer minTx and a shorter minRx hold only once the
	// poll that announces them is answered (section 6.8.3).
	usedTx, usedRx time.Duration
	polling        bool // a poll sequence is on
	again          bool // minTx or minRx changed during it: its end begins another one

	remote remote

	sent     time.Time     // the last periodic packet; zero: none yet
	interval time.Duration // from sent to the next, before jitter
	next     time.Time     // when the next periodic packet is due
	heard    time.Time     // the last packet that was believed; zero: the peer is forgotten
	retire   time.Time     // when an administratively down session has told its peer for long enough
}

// remote is what the peer said last. A peer that was not heard for a detection time is forgotten (section 6.8.1).
type remote struct {
	state      State
	diag       Diag
	yours      uint32 // bfd.RemoteDiscr
	minTx      time.Duration
	minRx      time.Duration // bfd.RemoteMinRxInterval
	multiplier uint8
	demand     bool
}

// forgotten is the peer of whom nothing is known; its initial minRx is that of section 6.8.1.
var forgotten = remote{state: Down, minRx: time.Microsecond}

func newSession(c Config, mine uint32, independent bool, random func() float64, now time.Time) *session {
	s := &session{config: c, mine: mine, independent: independent, random: random, state: Down, remote: forgotten, next: now}
	s.minTx, s.minRx = max(c.MinTx, slowStart), c.MinRx
	s.usedTx, s.usedRx = s.minTx, s.minRx
	return s
}

// resume is instead of a beginning, for a session that another process held a moment ago: to begin with Down would end it at the peer. It
// is up, and silent until the peer, who has our discriminator, says its own; if none comes in a detection time it has failed.
func (s *session) resume(now time.Time) {
	s.become(Up, NoDiag)
	s.heard, s.remote = now, remote{state: Up, minTx: s.config.MinTx, minRx: s.config.MinTx, multiplier: s.config.Multiplier}
}

// receive takes a packet that parse accepted and that belongs to this session, and returns what is to be sent at once.
func (s *session) receive(now time.Time, p packet) ([]packet, Discard) {
	if p.flags&flagAuth != 0 {
		return nil, Authenticated
	}
	s.remote = remote{
		state: p.state, diag: p.diag, yours: p.mine, minTx: p.minTx, minRx: p.minRx, multiplier: p.multiplier,
		demand: p.flags&flagDemand != 0,
	}
	if s.polling && p.flags&flagFinal != 0 {
		s.endPoll()
	}
	s.reschedule(now)
	if s.state == AdminDown {
		return nil, Disabled
	}
	s.heard = now
	before := s.state
	s.follow(p.state)
	switch {
	case p.flags&flagPoll != 0:
		return []packet{s.packet(flagFinal)}, Accepted // it tells of a new state as well
	case s.state != before:
		return s.announce(now), Accepted
	}
	return nil, Accepted
}

// follow is the state machine proper (section 6.8.6, figure in 6.2).
func (s *session) follow(theirs State) {
	switch {
	case theirs == AdminDown && s.state != Down:
		s.become(Down, NeighborDown)
	case s.state == Down && theirs == Down:
		s.become(Init, s.diag)
	case s.state == Down && theirs == Init, s.state == Init && (theirs == Init || theirs == Up):
		s.become(Up, NoDiag)
	case s.state == Up && theirs == Down:
		s.become(Down, NeighborDown)
	}
}

// tick does what the clock asks for: the end of the detection time, and periodic packets.
func (s *session) tick(now time.Time) []packet {
	if end := s.detection(); !end.IsZero() && !now.Before(end) {
		s.forget()
		if s.state == Init || s.state == Up {
			s.become(Down, TimeExpired)
			return s.announce(now)
		}
		s.reschedule(now)
	}
	if s.silent() || now.Before(s.next) {
		return nil
	}
	return s.announce(now)
}

// due is when tick has something to do; zero: never.
func (s *session) due() time.Time {
	due := s.detection()
	if !s.silent() && (due.IsZero() || s.next.Before(due)) {
		due = s.next
	}
	return due
}

func (s *session) forget() { s.remote, s.heard = forgotten, time.Time{} }

func (s *session) become(state State, diag Diag) {
	s.state, s.diag = state, diag
	s.retime()
}

// configure changes what is wanted of the session, without leaving Up.
func (s *session) configure(now time.Time, c Config) {
	s.config = c
	s.retime()
	s.reschedule(now)
}

// disable tells the peer that the session is off on purpose, until retire: for at least its detection time (section 6.8.16).
func (s *session) disable(now time.Time) []packet {
	if s.state == AdminDown {
		return nil
	}
	s.become(AdminDown, AdminDiag)
	s.heard = time.Time{} // what is said meanwhile is not listened to, and not missed
	s.retire = now.Add(time.Duration(s.config.Multiplier) * max(s.minTx, s.remote.minRx))
	return s.announce(now)
}

// enable begins anew after disable.
func (s *session) enable(now time.Time, c Config) {
	s.config, s.retire = c, time.Time{}
	s.forget()
	s.become(Down, NoDiag)
	s.next = now
}

// packet is the control packet of this moment (section 6.8.7).
func (s *session) packet(flags uint8) packet {
	if s.independent {
		flags |= flagCPI
	}
	return packet{
		diag: s.diag, state: s.state, flags: flags, multiplier: s.config.Multiplier, mine: s.mine, yours: s.remote.yours,
		minTx: s.minTx, minRx: s.minRx,
	}
}
