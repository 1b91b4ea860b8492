package ipsec

import (
	"errors"
	"fmt"
	"time"
)

// An epoch numbers the keys of one direction; its sender alone counts it. Two packets of one key must never have the
// same sequence number (AES-GCM would give both away), and a state's sequence begins at 1: so each epoch is used by one
// state of one boot, and never again. Hence the rules:
//
//   - a new state for sending has an epoch above every one that may have been used before;
//   - which that is, is on the disk before the state is in the kernel;
//   - a file that is of another boot may be an old copy, put back: the first epoch of a boot is at least the time, as below,
//     where the clock is set, and neither before this version nor years beyond it;
//   - what is not known from the disk begins at the minutes since 2020: a machine that has lost its disk is past all
//     epochs that it can have used at a rate of one a minute. Nobody outside makes it use more (see may).
//
// A receiver stands ready for a window from the highest epoch on that it has heard, that is, whose packets were
// authenticated. It never goes back: who replays packets of old epochs is not heard. For the epoch before the one that was
// heard no state is ever made, since it would not know what had come; the one that stands stays a moment, with its window
// of replay.

// epochStart is epoch 0 of a sender that knows nothing.
var epochStart = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// built is before any clock that is set.
var built = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// Built is before any clock that is set.
func Built() time.Time { return built }

// horizon is how far beyond built a clock is believed: one that is years ahead, for one boot, would leave epochs behind that no
// receiver finds. Receivers search up to furthest at least, so an epoch that was begun by a clock is always found.
const horizon = 5 * 365 * 24 * time.Hour

var furthest = sinceStart(built.Add(horizon))

// yearOf is that of the clock which gives an epoch; not exact, for a message.
func yearOf(epoch uint64) uint64 { return uint64(epochStart.Year()) + epoch/(365*24*60) }

// ErrClock says that epochs cannot begin, because this machine does not know the time.
var ErrClock = errors.New("the clock is not set")

// counters are the epochs of one peer.
type counters struct {
	Sent  uint64 `json:"sent"`  // no epoch above it was ever used for sending; 0: none was
	Heard uint64 `json:"heard"` // highest that was authenticated; 0: never heard
	Tag   uint32 `json:"tag"`   // of the SPIs of who was heard, which follows from secret and identities; 0: not known
	// Boot is that in which Sent was counted; "": a file of an earlier version does not tell.
	Boot string `json:"boot,omitempty"`
}

// stale says whether what is known of a peer's epochs may be an old copy. A state that sends was made in this boot, and so
// was a file of a version that did not tell.
func (p *peer) stale(boot string) bool { return p.Boot != boot && (p.live == 0 || p.Boot != "") }

// firstEpoch is that of a sender without a past. highest is above all that this node has used, in any tunnel.
func firstEpoch(now time.Time, highest uint64) (uint64, error) {
	if now.Before(built) {
		return 0, fmt.Errorf("%w: it says %s; set it (NTP, or `date -s`) and apply again: the first key of a tunnel is numbered by the time",
			ErrClock, now.UTC().Format(time.DateTime))
	}
	if sinceStart(now) > furthest {
		return 0, fmt.Errorf("%w: it says %s, more than %d years after this version of %s; set it (NTP, or `date -s`) and apply again, or install a newer version",
			ErrClock, now.UTC().Format(time.DateTime), int(horizon.Hours()/24/365), built.Format("January 2006"))
	}
	return max(sinceStart(now), highest+1), nil
}

// sinceStart is the epoch that a clock gives.
func sinceStart(now time.Time) uint64 { return uint64(max(0, now.Sub(epochStart)/time.Minute)) }

// windowAhead is for a sender that changed twice while nobody looked.
const windowAhead = 2

// linger is how long the state of the epoch before stays, once its successor was heard. A sender ends it within a second
// (overlap); the rest is for packets that wait on the way or are passed by others, in queues that hold seconds at the worst.
const linger = 10 * time.Second

// lingers says whether a peer was heard in a new epoch just now, or this process has just begun and does not know. The
// clock may have been set back.
func (d *Driver) lingers(p *peer) bool {
	since := d.opts.Now().Sub(p.turned)
	return since >= 0 && since < linger
}

// window returns the epochs for which a receiver that has heard one stands ready, lowest first; none before it has.
func window(heard uint64) []uint64 {
	if heard == 0 {
		return nil
	}
	var out []uint64
	for e := heard; e <= heard+windowAhead; e++ {
		out = append(out, e)
	}
	return out
}

// maxPackets is how many packets one epoch is sent in: below 2^32 a receiver that has lost its state needs not guess the
// upper half of the extended sequence number (RFC 4303 section 2.2.1), and half of that leaves time to change.
const maxPackets = 1 << 31

// due says whether an epoch that is age old and has sent packets must make room for the next.
func due(age, rekey time.Duration, packets uint64) bool {
	return packets >= maxPackets || rekey > 0 && age >= rekey
}
