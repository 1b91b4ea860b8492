package bfd

import (
	"errors"
	"net"
	"time"
)

// read takes what comes to a listener until that is closed.
func (s *Server) read(l *listener) {
	b := make([]byte, longestPacket)
	for {
		a, err := l.next(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil { // else an ICMP error's echo, which says nothing here
			s.receive(l, a)
		}
	}
}

func (s *Server) receive(l *listener, a arrival) {
	p, discard := parse(a.payload)
	if a.ttl != ttl {
		discard = BadTTL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var e *entry
	if discard == Accepted {
		e, discard = s.find(l, a, p)
	}
	if discard == Accepted {
		now := time.Now()
		s.step(e, now, func() (packets []packet) {
			packets, discard = e.receive(now, p)
			return packets
		})
	}
	if s.discards[discard]++; discard == Accepted {
		e.received++
		e.fate = p.flags&flagCPI == 0
	}
}

// find is the session that a packet is for: by the discriminator that it gives back, and before it knows one by its source
// and interface (RFC 5880 section 6.3). RFC 5880 would let a known session's packets come from anywhere; here they come from
// its peer, for that is the neighbor whose routes hang on it.
func (s *Server) find(l *listener, a arrival, p packet) (*entry, Discard) {
	here := func(e *entry) bool {
		c := e.config
		return c.Peer == a.from && (c.Interface == "" || l.index(c.Interface) == a.ifindex)
	}
	if p.yours != 0 {
		e := s.byMine[p.yours]
		switch {
		case e == nil:
			return nil, Unknown
		case !here(e):
			return nil, WrongPeer
		}
		return e, Accepted
	}
	for k, e := range s.sessions {
		if k.peer == a.from && here(e) {
			return e, Accepted
		}
	}
	return nil, Unknown
}
