package xdp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sluice/xdp/abi"
	"sluice/xdp/table"
)

// CaptureFilter says which packets to capture: those that fit all of its fields. Zero values ask for nothing, and so take
// every packet.
type CaptureFilter struct {
	Reasons  []abi.Reason // any of them; nil: every reason
	Rules    []uint32     // stable ids, any of them; at most abi.CaptureRules
	Hooks    []abi.Hook   // any of them
	Ifindex  int
	Host     netip.Prefix // source or destination
	Protocol int          // -1: any
	Port     uint16       // source or destination
	Sample   int          // one in so many
	Snaplen  int          // bytes of a frame at most; 0, or more than abi.CaptureSnaplen: as many as there can be
}

// Frame is one captured packet, as its hook left it.
type Frame struct {
	Time    time.Duration // CLOCK_BOOTTIME
	Hook    abi.Hook
	Ifindex int
	Reason  abi.Reason
	Rule    uint32 // stable id of the rule that decided; 0: none did
	L3      bool   // begins with its IP header: the link has no other
	Len     int    // bytes that the frame had
	Data    []byte // of it, from the beginning; the callee's own
}

// Captured counts, since the capture began, the packets that the filter and sampling left.
type Captured struct {
	Wanted     uint64
	Suppressed uint64 // of them, beyond the rate
	Lost       uint64 // of them, without room in the ring: they were read too slowly
}

// Capture makes the programs of both hooks copy the packets that the filter wants, at most rate a second in all. It
// calls begun once they do, and then frame for each packet. It ends with ctx, after what the ring still holds, or with
// the first error of either. A frame that takes its time holds up nobody but the capture itself: what finds no room in
// the ring is lost, and counted. Only one may run at a time.
func Capture(ctx context.Context, path string, f CaptureFilter, rate int, begun func() error, frame func(Frame) error) (Captured, error) {
	filter, err := f.abi()
	if err != nil {
		return Captured{}, err
	}
	spec, err := loadIngress()
	if err != nil {
		return Captured{}, err
	}
	w, err := table.OpenWatch(path, spec, abi.WatchCapture, "captured packets", table.CaptureEvents, rate, table.CaptureFilter)
	if err != nil {
		return Captured{}, err
	}
	defer w.Close()
	before, err := beginCapture(w, filter)
	if err != nil {
		return Captured{}, err
	}
	defer w.Stop()
	if err := begun(); err != nil {
		return Captured{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	kept := make(chan error, 1)
	go func() {
		err := w.Keep(ctx, func() error { return nil })
		w.Stop()
		w.Flush() // the reader goes on to the end of what is there
		kept <- err
	}()
	err = w.Read(func(raw []byte) error {
		e, got, err := frameOf(raw)
		if err != nil || e.Session != filter.Session {
			return err
		}
		return frame(got)
	})
	cancel()
	err = errors.Join(err, <-kept)
	now, counted := w.Spent()
	return Captured{now.Wanted - before.Wanted, now.Suppressed - before.Suppressed, now.Lost - before.Lost}, errors.Join(err, counted)
}

// beginCapture writes the filter while no program reads it, and leases.
func beginCapture(w *table.Watch, filter abi.CaptureFilter) (before abi.WatchBudget, err error) {
	w.Stop() // a process that was killed may have left a lease
	if err := w.Maps[table.CaptureFilter].Put(uint32(0), filter); err != nil {
		return before, fmt.Errorf("write the filter of the capture: %w", err)
	}
	before, err = w.Spent()
	if err != nil {
		return before, err
	}
	return before, w.Lease()
}

// abi is the filter as the programs read it.
func (f CaptureFilter) abi() (abi.CaptureFilter, error) {
	out := abi.CaptureFilter{
		Session: uint32(table.BootTime() / time.Microsecond), Ifindex: uint32(f.Ifindex), Sample: uint32(max(1, f.Sample)),
		Snaplen: abi.CaptureSnaplen,
	}
	if len(f.Rules) > abi.CaptureRules {
		return out, fmt.Errorf("a capture has %d rules at most, and %d are asked for", abi.CaptureRules, len(f.Rules))
	}
	copy(out.Rules[:], f.Rules)
	for _, r := range f.Reasons {
		out.Reasons[r/64] |= 1 << (r % 64)
	}
	if f.Reasons == nil {
		for i := range out.Reasons {
			out.Reasons[i] = ^uint64(0)
		}
	}
	for _, h := range f.Hooks {
		out.Hooks |= 1 << h
	}
	if f.Hooks == nil {
		out.Hooks = 1<<abi.HookMax - 1
	}
	if f.Host.IsValid() {
		out.HostFamily, out.Host, out.Mask = hostKey(f.Host)
	}
	if f.Protocol >= 0 {
		out.Flags, out.Protocol = abi.CaptureProtocol, uint8(f.Protocol)
	}
	binary.BigEndian.PutUint16(out.Port[:], f.Port)
	if f.Snaplen > 0 {
		out.Snaplen = uint32(min(f.Snaplen, abi.CaptureSnaplen))
	}
	return out, nil
}

// hostKey is a prefix as addresses stand in packets: IPv4 behind ::ffff:0:0/96.
func hostKey(p netip.Prefix) (family uint8, host, mask abi.Addr) {
	p = p.Masked()
	bits := p.Bits()
	family = 6
	if p.Addr().Is4() {
		family, bits = 4, bits+96
	}
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return family, p.Addr().As16(), mask
}

// tagAt is where a VLAN tag stands in a frame: behind both MAC addresses.
const tagAt = 12

// frameOf copies: raw is the ring's. A tag that stood beside the frame is put where it was on the wire.
func frameOf(raw []byte) (abi.CaptureEvent, Frame, error) {
	var e abi.CaptureEvent
	n, err := binary.Decode(raw, binary.NativeEndian, &e)
	if err != nil || len(raw)-n < int(e.Captured) {
		return e, Frame{}, fmt.Errorf("ring of captured packets: %d bytes are no packet of this version", len(raw))
	}
	f := Frame{
		Time: time.Duration(e.TimeNs), Hook: abi.Hook(e.Hook), Ifindex: int(e.Ifindex), Reason: abi.Reason(e.Reason), Rule: e.Rule,
		L3: e.Flags&abi.CaptureL3 != 0, Len: int(e.Len),
	}
	data := raw[n : n+int(e.Captured)]
	tagged := e.VLANProto != [2]byte{} && !f.L3 && len(data) >= tagAt
	if !tagged {
		f.Data = append([]byte(nil), data...)
		return e, f, nil
	}
	f.Data = append(make([]byte, 0, len(data)+4), data[:tagAt]...)
	f.Data = append(f.Data, e.VLANProto[:]...)
	f.Data = binary.BigEndian.AppendUint16(f.Data, e.VLANTci)
	f.Data = append(f.Data, data[tagAt:]...)
	f.Len += 4
	return e, f, nil
}
