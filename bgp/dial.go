package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Dial is the last attempt to connect, where it failed.
type Dial struct {
	Time  time.Time `json:"time"`
	Error string    `json:"error"`
}

// unheard is what becomes of a connection that the neighbor ends before it says anything.
const unheard = "ended before an OPEN"

// dialed takes the outcome of an attempt; "" is a connection.
func (s *sessions) dialed(addr netip.Addr, at time.Time, failure string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil {
		return
	}
	known.dial = nil
	if failure != "" {
		known.dial = &Dial{at, known.n.undialed(failure)}
	}
}

// undialed says what to look for. A kernel drops segments with a wrong key, or without the one that it has, so a neighbor with another password,
// and one with a password that has no listener, are silent.
func (n Neighbor) undialed(failure string) string {
	to, why := fmt.Sprintf("%s port %d", n.Address, cmp.Or(n.Port, 179)), failure[strings.LastIndex(failure, ": ")+1:]
	switch why = strings.TrimSpace(why); why {
	case "i/o timeout", "connection timed out":
		if n.PasswordFile != "" {
			return to + " does not answer: is the password the same at both ends? If it is: does BGP run there, and is there no filter on the way?"
		}
		return to + " does not answer: is it there, is there no filter on the way, does it want a password?"
	case "connection refused":
		return to + " refuses the connection: does BGP run there, on this port?"
	case "no route to host", "network is unreachable":
		return to + " cannot be reached: " + why
	case "cannot assign requested address":
		return fmt.Sprintf("%s is no address of this box (local_address)", n.LocalAddress)
	case unheard:
		return to + " takes the connection and ends it: has it this end's address as a neighbor?"
	}
	return to + ": " + why
}
