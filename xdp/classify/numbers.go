package classify

import "sluice/xdp/abi"

// Entries are numbered in the order of their rules, with room between them for rules to come.
const (
	roomEvery = 16  // so many rules have
	roomSize  = 2   // room for so many entries behind them
	roomShare = 16  // one in so many entries behind each policy
	roomFrom  = 256 // entries; fewer are moved as fast
	mostMoved = 256
)

// number gives the entries of all rules their numbers, and returns how many there are with the room between.
func (c *compiler) number(needs int) (size int) {
	spare := 0
	if needs >= roomFrom {
		spare = min(abi.MaxRules-needs, needs/4)
	}
	at, since, ofPolicy := uint32(0), 0, 0
	leave := func(room int) {
		room = min(room, spare)
		spare -= room
		at += uint32(room)
	}
	for i := range c.rules {
		r := &c.rules[i]
		if since++; since == roomEvery {
			leave(roomSize)
			since = 0
		}
		if i > 0 && c.rules[i-1].policy != r.policy {
			leave(ofPolicy / roomShare)
			ofPolicy = 0
		}
		n := r.entries(r.manner)
		r.first, r.end = at, at+uint32(n)
		at, ofPolicy = r.end, ofPolicy+n
	}
	leave(ofPolicy / roomShare)
	return int(at)
}

// renumber finds numbers for the n-th rule, whose entries are count now, between those of its neighbours. Where there is
// no room those behind it move, which moved is told before they do. false: they would be too many.
func (c *compiler) renumber(n, count int, moved func(n int)) bool {
	low := uint32(0)
	for i := n - 1; i >= 0; i-- {
		if c.rules[i].first != c.rules[i].end {
			low = c.rules[i].end
			break
		}
	}
	next := n + 1
	for next < len(c.rules) && c.rules[next].first == c.rules[next].end {
		next++
	}
	high := uint32(len(c.tables.Rules))
	if next < len(c.rules) {
		high = c.rules[next].first
	}
	r := &c.rules[n]
	if room := int(high) - int(low); count <= room {
		r.first = low + uint32(room-count)/2
		r.end = r.first + uint32(count)
		return true
	}
	r.first, r.end = low, low+uint32(count)
	for at, number := r.end, 0; next < len(c.rules); next++ {
		follower := &c.rules[next]
		if follower.first == follower.end {
			continue
		}
		if follower.first >= at {
			return true
		}
		if number++; number > mostMoved {
			return false
		}
		moved(next)
		size := follower.end - follower.first
		follower.first, follower.end = at, at+size
		at = follower.end
	}
	last := c.lastEnd()
	for len(c.tables.Rules) < int(last) {
		c.tables.Rules = append(c.tables.Rules, abi.Rule{})
		c.tables.Verdicts = append(c.tables.Verdicts, abi.Verdict{})
	}
	return last <= abi.MaxRules
}

// lastEnd is where the last entry ends.
func (c *compiler) lastEnd() uint32 {
	for i := len(c.rules) - 1; i >= 0; i-- {
		if r := &c.rules[i]; r.first != r.end {
			return r.end
		}
	}
	return 0
}
