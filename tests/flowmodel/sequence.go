package flowmodel

import (
	"fmt"
	"strings"
	"time"

	"sluice/xdp/abi"
)

// Hop is a hook on a packet's way. From is, at egress, the interface that it came in by.
type Hop struct {
	Hook
	From string
}

// Step is one of: a packet on its way, time that passes, another generation, or the sweep.
type Step struct {
	Hops   []Hop
	Packet Packet
	// AsSeen sends the packet to the address that the outside knows, where its flow is translated; an error quotes it so.
	AsSeen bool
	Flood  int // so many packets, each from another port, then another address
	Pass   time.Duration
	Switch int // to this generation, counted from 1
	Sweep  bool
}

// String is one readable line.
func (s Step) String() string {
	switch {
	case s.Pass != 0:
		return fmt.Sprintf("%s pass", s.Pass)
	case s.Switch != 0:
		return fmt.Sprintf("generation %d", s.Switch)
	case s.Sweep:
		return "the sweep"
	}
	var at []string
	for _, h := range s.Hops {
		text := h.Hook.String()
		if h.From != "" {
			text += " from " + h.From
		}
		at = append(at, text)
	}
	line := strings.Join(at, ", ") + ": " + s.Packet.String()
	if s.AsSeen {
		line += ", to the translated address"
	}
	if s.Flood != 0 {
		line += fmt.Sprintf(", %d of the kind", s.Flood)
	}
	return line
}

// Lines is a sequence to read.
func Lines(steps []Step) string {
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "%3d  %s\n", i+1, s)
	}
	return b.String()
}

// At is the packet of a step as it is sent: symbolic parts filled in.
func (m *Model) At(s Step) Packet {
	p := s.Packet
	if h := s.Hops[0].Hook; !s.AsSeen || h.Egress || m.generation().Interfaces[h.Interface].Role != abi.RoleUplink {
		return p
	}
	about := p
	if p.Quote != nil {
		about = *p.Quote
	}
	k, ok := m.keyAt(s.Hops[0].Hook, about)
	f := m.Find(k)
	if p.Part == LaterFragment {
		// Ports are hidden: any translation of the destination will do.
		for _, g := range m.Flows {
			if m.alive(g) && g.NAT.IsValid() && g.Opener.Addr() == p.Dst {
				p.Dst = g.NAT.Addr()
				return p
			}
		}
	}
	if !ok || f == nil || !f.NAT.IsValid() {
		return p
	}
	if p.Quote != nil {
		if from, _ := about.Ends(); from == f.Opener {
			q := about.withSource(f.NAT)
			p.Quote = &q
			if p.Dst == f.Opener.Addr() {
				p.Dst = f.NAT.Addr()
			}
		}
		return p
	}
	if _, to := p.Ends(); to == f.Opener {
		p = p.withDestination(f.NAT)
	}
	return p
}

// Next says what the packet is at the next hook, and whether it gets there: what is left to the kernel to forward, which takes
// a hop off, and what was redirected to it.
func (o Outcome) Next(h Hop) (p Packet, mark uint32, goes bool) {
	switch {
	case o.Reason == abi.ReasonStackForward && o.Left.TTL > 1:
		p = o.Left
		p.TTL--
		return p, o.Mark, true
	case o.Reason == abi.ReasonForwarded && o.To == h.Interface:
		return o.Left, o.Mark, true
	}
	return p, 0, false
}

// Kind is the n-th packet of a flood.
func (s Step) Kind(n int) Packet {
	p := s.Packet
	p.Sport += uint16(n % 1000)
	for range n / 1000 {
		p.Src = p.Src.Next()
	}
	return p
}

// Shrink returns a sequence as short as it gets that still fails.
func Shrink(steps []Step, fails func([]Step) bool) []Step {
	for size := (len(steps) + 1) / 2; size > 0; {
		shorter := false
		for at := 0; at+size <= len(steps); {
			try := append(append([]Step{}, steps[:at]...), steps[at+size:]...)
			if fails(try) {
				steps, shorter = try, true
				continue
			}
			at += size
		}
		if !shorter || size > len(steps) {
			size /= 2
		}
	}
	return steps
}

// entry is where a packet at the hook came in: "" for the box's own.
func (h Hop) entry() string {
	if h.Egress {
		return h.From
	}
	return h.Interface
}

// Leaks says whether a packet that leaves by an uplink has a source that had to be translated. What answers who opened a flow, or
// complains about what came from it, has not: it is known there as it is, also where the opener came in from the inside.
func (m *Model) Leaks(h Hop, o Outcome) bool {
	g := m.generation()
	by := o.To
	if h.Egress {
		by = h.Interface
	}
	if o.Drops() || g.Interfaces[by].Role != abi.RoleUplink || g.Self[o.Left.Src] || !g.translates(h.entry(), o.Left.Src) {
		return false
	}
	p := o.Left
	if p.Part == LaterFragment {
		f, ok := m.part(datagramOf(&p))
		return !ok || f.to.IsValid()
	}
	if p.IsError() {
		p = *p.Quote
		k, ok := m.keyAt(h.Hook, p)
		f := m.Find(k)
		return !ok || f == nil || f.Inside && f.Opener.Addr() == p.Dst
	}
	k, ok := m.keyAt(h.Hook, p)
	f := m.Find(k)
	from, _ := p.Ends()
	return !ok || f == nil || f.Opener == from
}
