package tc

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"sluice/xdp/abi"
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
	Origin           string // "inside": the node, a workload or a LAN opened it; "outside"
	Protocol         uint8
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16         // host byte order; of an echo: its id and 0
	Translated       netip.AddrPort // source on the wire; invalid: it is not translated
	State            string         // one of FlowStates
	Age              time.Duration  // since the first packet
	Idle             time.Duration  // since the last packet of either direction, give or take a second
	Sent, Answered   Count          // packets and bytes from who opened it, and toward it
	Rules            [2]uint32      // stable ids of what let it in: of who sends, of who receives; 0: none
	Owner            int            // interface index of the workload or LAN that opened it; 0: the node, or the outside
	Workload         string         // that opened it or that it leads to, by FlowQuery.Workloads; "": none

	key abi.FlowKey
}

// FlowStates are the states of flows, by enum flow_state, and of one that policy no longer permits.
var FlowStates = []string{"new", "replied", "established", "closing", "closed", "revoked"}

const revoked = "revoked"

func decodeFlow(key abi.FlowKey, value abi.Flow, now int64) Flow {
	src := value.Opener & 1
	dst := 1 - src
	f := Flow{
		Origin: "outside", Protocol: key.Protocol, State: flowState(value),
		Src: netip.AddrFrom16(key.Addr[src]).Unmap(), Dst: netip.AddrFrom16(key.Addr[dst]).Unmap(),
		SrcPort: binary.BigEndian.Uint16(key.Port[src][:]), DstPort: binary.BigEndian.Uint16(key.Port[dst][:]),
		Age: max(time.Duration(now-int64(value.SinceNs)), 0), Idle: max(time.Duration(now-int64(value.LastNs)), 0),
		Sent: Count(value.Sent), Answered: Count(value.Answered), Rules: value.Rule, Owner: int(value.Owner), key: key,
	}
	if value.Flags&abi.FlowInside != 0 {
		f.Origin = "inside"
	}
	if value.Flags&abi.FlowNat != 0 {
		f.Translated = netip.AddrPortFrom(netip.AddrFrom16(value.NatAddr).Unmap(), binary.BigEndian.Uint16(value.NatPort[:]))
	}
	return f
}

func flowState(value abi.Flow) string {
	if abi.Reason(value.Judged) == abi.ReasonFlowRevoked {
		return revoked
	}
	return FlowStates[min(int(value.State), len(FlowStates)-2)]
}

func compareFlows(a, b Flow) int {
	return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Protocol, b.Protocol),
		a.Src.Compare(b.Src), cmp.Compare(a.SrcPort, b.SrcPort), a.Dst.Compare(b.Dst), cmp.Compare(a.DstPort, b.DstPort),
		slices.Compare(a.key.Scope[:], b.key.Scope[:]))
}

// flowTimeout equals flow_timeout of flow.h.
func flowTimeout(key abi.FlowKey, value abi.Flow) time.Duration {
	fresh := abi.FlowState(value.State) == abi.FlowNew
	switch {
	case flowState(value) == revoked:
		return 60 * time.Second
	case key.Protocol == protoTCP:
		return tcpTimeout(value)
	case key.Protocol == protoICMP, key.Protocol == protoICMPv6:
		return 30 * time.Second
	case fresh:
		return 60 * time.Second
	case key.Protocol == protoUDP:
		return 180 * time.Second
	}
	return 600 * time.Second
}

func tcpTimeout(value abi.Flow) time.Duration {
	switch abi.FlowState(value.State) {
	case abi.FlowEstablished:
		return 7440 * time.Second
	case abi.FlowClosing:
		return 120 * time.Second
	case abi.FlowClosed:
		if value.Flags&abi.FlowRst != 0 {
			return 10 * time.Second
		}
		if value.Flags&abi.FlowInside == 0 {
			return 70 * time.Second
		}
		return 30 * time.Second
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

// Wire is its source after translation; "": it is not translated.
func (f Flow) Wire() string {
	if !f.Translated.IsValid() {
		return ""
	}
	return f.endpoint(f.Translated.Addr(), f.Translated.Port())
}

func (f Flow) endpoint(a netip.Addr, port uint16) string {
	switch f.Protocol {
	case protoTCP, protoUDP, protoSCTP:
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}
