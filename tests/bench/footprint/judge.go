package main

import (
	"errors"
	"fmt"
	"time"
)

// probe says how a frame is judged before a change and after it.
type probe struct{ before, after bool } // it passes

// The probes. Those that a change does not alter show what is lost and what is let through meanwhile.
var (
	removed  = probe{false, true}  // of the old list alone
	added    = probe{true, false}  // of the new list alone
	listed   = probe{false, false} // of both
	unlisted = probe{true, true}   // of none
)

// Change is what the frames saw of one command. Times count from its start.
type Change struct {
	Command  time.Duration // until the command had ended
	CPU      time.Duration // of the command and of what worked for it
	FirstNew time.Duration // the first frame that the new list judged was sent
	LastOld  time.Duration // the last one that the old list judged
	Frames   int           // sent and taken by the wire
	Mixed    int           // judged by the old list after the first that was judged by the new
	Lost     int           // should have passed before and after, and did not
	Leaked   int           // should have been dropped before and after, and were not
	Refused  int           // by the wire
	Pause    time.Duration // the longest between two frames: nothing is known of it
	end      time.Duration // the last frame was sent
	held     bool          // the old list judged one before the command
}

// Visible is how long the change took until every frame was judged by it: the upper bound, where frames were far apart.
func (c *Change) Visible() time.Duration { return max(c.FirstNew, c.LastOld) }

// judge reads a trace whose frames are of these probes in turn. A frame that arrived says for certain which list judged
// it; one that did not may be lost as well, so before the change it counts as that where it should have passed.
func judge(t *Trace, probes []probe) *Change {
	c := &Change{Command: t.Took, FirstNew: t.end(), LastOld: t.Sent[0], end: t.end()}
	removes := false
	for _, p := range probes {
		removes = removes || p == removed
	}
	old := func(i int) bool { return probes[i%len(probes)] == added && t.Seen[i] }
	fresh := func(i int) bool {
		p := probes[i%len(probes)]
		return p == removed && t.Seen[i] || !removes && p == added && !t.Seen[i] && !t.Refused[i]
	}
	for i, at := range t.Sent {
		if old(i) {
			c.LastOld = max(c.LastOld, at)
			c.held = c.held || at < 0
		}
		if fresh(i) {
			c.FirstNew = min(c.FirstNew, at)
		}
		if i > 0 {
			c.Pause = max(c.Pause, at-t.Sent[i-1])
		}
	}
	for i, at := range t.Sent {
		if t.Refused[i] {
			c.Refused++
			continue
		}
		c.Frames++
		late := at > c.FirstNew
		switch p := probes[i%len(probes)]; {
		case p == unlisted && !t.Seen[i], p == added && !t.Seen[i] && at < min(c.FirstNew, c.LastOld):
			c.Lost++
		case p == listed && t.Seen[i]:
			c.Leaked++
		case late && (p == added && t.Seen[i] || p == removed && !t.Seen[i]):
			c.Mixed++
		}
	}
	return c
}

func (t *Trace) end() time.Duration { return t.Sent[len(t.Sent)-1] }

// check is an error where a change did not do what it should: it never came, or frames were judged as neither list would.
func (c *Change) check() error {
	switch {
	case c.Frames == 0:
		return errors.New("no frame was sent")
	case !c.held:
		return errors.New("no frame was judged by the old list: the lane did not hold it")
	case c.LastOld > c.Command+leadOut/2:
		return fmt.Errorf("frames were judged by the old list %s after the command had ended", c.LastOld-c.Command)
	case c.FirstNew >= c.end:
		return errors.New("no frame was judged by the new list")
	}
	return nil
}
