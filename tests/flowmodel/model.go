// Package flowmodel is the reference model of the flow tables and of SNAT at the tcx hooks: plain, slow, and written from what
// the design says, not from the programs, which are checked against it with generated packets.
package flowmodel

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	"sluice/xdp/abi"
)

// Model is a gateway's state between packets.
type Model struct {
	World   *World
	Live    int // index of the generation in use
	Now     time.Duration
	Flows   map[Key]*Flow // dead ones included, until their key is wanted
	Wires   map[Key]*Wire // translations by what is seen outside
	Shares  map[string]int
	Hits    map[uint32]uint64 // packets by rule
	Evicted int               // flows that the kernel's tables were allowed to lose

	born    int
	parts   map[datagram]fate
	excused map[datagram]bool // their first fragments were, from the matrix; until time passes
}

// Wire is a translation: the way back to who opened the flow. It holds as long as its flow does.
type Wire struct {
	Inner Key
	Birth int            // of the flow
	End   netip.AddrPort // who opened it
	Made  time.Duration
}

// datagram is what fragments have in common.
type datagram struct {
	from, to netip.Addr
	protocol uint8
	id       uint16
}

func datagramOf(p *Packet) datagram {
	d := datagram{p.Src, p.Dst, p.Protocol, p.Datagram}
	if p.Src.Is6() { // the identification alone tells (RFC 8200 section 4.5)
		d.protocol = 0
	}
	return d
}

// fate is what the first fragment met: another address, or none.
type fate struct {
	to netip.Addr // invalid: it was left as it is
	at time.Duration
}

// NewModel starts with empty tables.
func NewModel(w *World) *Model {
	return &Model{World: w, Flows: map[Key]*Flow{}, Wires: map[Key]*Wire{}, Shares: map[string]int{}, Hits: map[uint32]uint64{},
		parts: map[datagram]fate{}, excused: map[datagram]bool{}}
}

// Outcome is what becomes of a packet at one hook.
type Outcome struct {
	Reason abi.Reason
	Also   []abi.Reason // as right
	To     string       // interface that it is redirected to
	Mark   uint32
	Left   Packet // as it leaves, unless it is dropped
	Fault  string // what the program did that nothing allows
}

// Drops says whether the packet ends here.
func (o Outcome) Drops() bool { return o.Reason.Fate() == abi.FateDrop }

// Allows says whether a reason is a right one.
func (o Outcome) Allows(r abi.Reason) bool {
	for _, other := range o.Also {
		if other == r {
			return true
		}
	}
	return o.Reason == r
}

// Observed is what only the program can tell: which port it chose, of several that are right.
type Observed struct {
	Source netip.AddrPort // of the packet as it left
	Reason abi.Reason
}

// grace is for how long a translation without its flow, or one that was made just now, may be nobody's to take.
const grace = 2 * time.Second

// fragmentTime is for how long later fragments follow their first.
const fragmentTime = 30 * time.Second

// Pass lets time pass, by d or a little more: never so that a flow is within a second of its end, where a program that writes
// the time once a second may say either.
func (m *Model) Pass(d time.Duration) time.Duration {
	const blur = grace + 1500*time.Millisecond
	for again := true; again; {
		again = false
		near := func(end time.Duration) {
			if away := m.Now + d - end; away > -blur && away < blur {
				again = true
			}
		}
		for _, f := range m.Flows {
			near(f.Last + f.Timeout())
		}
		for _, f := range m.parts {
			near(f.at + fragmentTime)
		}
		if again {
			d += 2 * blur
		}
	}
	m.Now += d
	clear(m.excused)
	return d
}

// part is what the first fragment of a datagram met, where it is known.
func (m *Model) part(d datagram) (fate, bool) {
	f, ok := m.parts[d]
	return f, ok && m.Now-f.at <= fragmentTime
}

// Switch makes another generation live.
func (m *Model) Switch(to int) { m.Live = to }

func (m *Model) generation() *Generation { return &m.World.Generations[m.Live] }

// alive says whether a flow is there for a packet.
func (m *Model) alive(f *Flow) bool { return f != nil && m.Now-f.Last <= f.Timeout() }

// Find returns the live flow of a key, or nil.
func (m *Model) Find(k Key) *Flow {
	if f := m.Flows[k]; m.alive(f) {
		return f
	}
	return nil
}

// Expired lists the keys of flows that are dead and still there.
func (m *Model) Expired() []Key {
	var keys []Key
	for k, f := range m.Flows {
		if !m.alive(f) {
			keys = append(keys, k)
		}
	}
	return keys
}

// Forget removes a flow: an eviction, or the sweep.
func (m *Model) Forget(k Key) { delete(m.Flows, k) }

// touch notes that a packet came, at most once a second.
func (m *Model) touch(f *Flow) {
	if m.Now-f.Last > time.Second {
		f.Last = m.Now
	}
}

// wire returns the translation that holds for what is seen outside, or nil.
func (m *Model) wire(k Key) *Wire {
	w := m.Wires[k]
	if w == nil {
		return nil
	}
	f := m.Find(w.Inner)
	if f == nil || f.Birth != w.Birth || !f.NAT.IsValid() || wireKey(f) != k {
		return nil
	}
	return w
}

// wireKey is what a translated flow looks like outside.
func wireKey(f *Flow) Key {
	return KeyOf(f.Key.Protocol, f.NAT, f.Key.other(f.Opener), "")
}

func (k Key) other(end netip.AddrPort) netip.AddrPort {
	if k.A == end {
		return k.B
	}
	return k.A
}

// Check returns what is wrong with the model's own state: nothing, ever.
func (m *Model) Check() error {
	held := map[Key]Key{}
	for k, f := range m.Flows {
		if !m.alive(f) || !f.NAT.IsValid() || f.lost {
			continue
		}
		wk := wireKey(f)
		if other, ok := held[wk]; ok {
			return fmt.Errorf("%s and %s are both seen as %s", k, other, wk)
		}
		held[wk] = k
		if w := m.wire(wk); w == nil || w.Inner != k || w.End != f.Opener {
			return fmt.Errorf("%s has no way back from %s", k, wk)
		}
	}
	return nil
}

// Clone is a copy that shares nothing that changes.
func (m *Model) Clone() *Model {
	c := *m
	c.Flows, c.Wires = map[Key]*Flow{}, map[Key]*Wire{}
	for k, f := range m.Flows {
		copied := *f
		c.Flows[k] = &copied
	}
	for k, w := range m.Wires {
		copied := *w
		c.Wires[k] = &copied
	}
	c.Shares, c.Hits, c.parts, c.excused = maps.Clone(m.Shares), maps.Clone(m.Hits), maps.Clone(m.parts), maps.Clone(m.excused)
	return &c
}
