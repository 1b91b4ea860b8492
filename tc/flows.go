package tc

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// IP protocol numbers (IANA) that flows treat apart.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// Flow is a live entry of the flow tables, in the direction of its first packet.
type Flow struct {
	Origin           string // "inside": replies to it may come in; "outside": replies may go out
	Protocol         uint8
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16        // host byte order; of an echo: its id and 0
	Idle             time.Duration // since the last packet of either direction, give or take a second
	Replied          bool
	state            abi.FlowState
	reset            bool
	Closing          bool // TCP: RST or FIN was seen
}

// Flows lists what is live in both tables, sorted by origin, then protocol, addresses and ports.
func (s *Subsystem) Flows(ctx context.Context) ([]Flow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	var flows []Flow
	for _, name := range []string{table.Flows, table.FreshOut, table.FreshIn} {
		m, err := table.ReadShared(pin.At(s.dir), name)
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue
		}
		flows, err = appendFlows(ctx, flows, m, now.Nano())
		if err = errors.Join(err, m.Close()); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(flows, compareFlows)
	// A walk over a table that packets write may meet an entry twice.
	return slices.CompactFunc(flows, func(a, b Flow) bool { return compareFlows(a, b) == 0 }), nil
}

func appendFlows(ctx context.Context, flows []Flow, m *ebpf.Map, now int64) ([]Flow, error) {
	var (
		key   abi.FlowKey
		value abi.Flow
	)
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f := decodeFlow(key, value, now)
		if f.Idle <= f.timeout() {
			flows = append(flows, f)
		}
	}
	if err := entries.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("flow table: %w", err)
	}
	return flows, nil
}

func decodeFlow(key abi.FlowKey, value abi.Flow, now int64) Flow {
	from := value.Opener & 1
	f := Flow{
		Origin: "outside", Protocol: key.Protocol,
		Src: netip.AddrFrom16(key.Addr[from]).Unmap(), Dst: netip.AddrFrom16(key.Addr[1-from]).Unmap(),
		SrcPort: binary.BigEndian.Uint16(key.Port[from][:]), DstPort: binary.BigEndian.Uint16(key.Port[1-from][:]),
		Idle:  max(time.Duration(now-int64(value.LastNs)), 0),
		state: abi.FlowState(value.State), reset: value.Flags&abi.FlowRst != 0,
		Replied: value.State >= uint8(abi.FlowReplied), Closing: value.State >= uint8(abi.FlowClosing),
	}
	if value.Flags&abi.FlowInside != 0 {
		f.Origin = "inside"
	}
	return f
}

func compareFlows(a, b Flow) int {
	return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Protocol, b.Protocol),
		a.Src.Compare(b.Src), cmp.Compare(a.SrcPort, b.SrcPort), a.Dst.Compare(b.Dst), cmp.Compare(a.DstPort, b.DstPort))
}

// timeout equals flow_timeout of flow.h.
func (f Flow) timeout() time.Duration {
	replied := f.state != abi.FlowNew
	switch {
	case f.Protocol == protoTCP && f.state == abi.FlowEstablished:
		return 7440 * time.Second
	case f.Protocol == protoTCP && f.state == abi.FlowClosing:
		return 120 * time.Second
	case f.Protocol == protoTCP && f.state == abi.FlowClosed && f.reset:
		return 10 * time.Second
	case f.Protocol == protoTCP && f.state == abi.FlowClosed, f.Protocol == protoICMP, f.Protocol == protoICMPv6:
		return 30 * time.Second
	case f.Protocol == protoUDP && replied:
		return 180 * time.Second
	case f.Protocol != protoTCP && replied:
		return 600 * time.Second
	}
	return 60 * time.Second
}

// ProtocolName is the protocol as rules name it, or its number.
func (f Flow) ProtocolName() string {
	switch f.Protocol {
	case protoICMP:
		return "icmp"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoICMPv6:
		return "icmpv6"
	case protoSCTP:
		return "sctp"
	}
	return strconv.Itoa(int(f.Protocol))
}

// Source is where the first packet came from: "192.0.2.7:1234", or without a port where the protocol has none.
func (f Flow) Source() string { return f.endpoint(f.Src, f.SrcPort) }

// Destination is where the first packet went to.
func (f Flow) Destination() string { return f.endpoint(f.Dst, f.DstPort) }

func (f Flow) endpoint(a netip.Addr, port uint16) string {
	switch f.Protocol {
	case protoTCP, protoUDP, protoSCTP:
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}

// State is "new" until a reply passed, then "established", and "closing" once TCP ends.
func (f Flow) State() string {
	switch {
	case f.Closing:
		return "closing"
	case f.Replied:
		return "established"
	}
	return "new"
}
