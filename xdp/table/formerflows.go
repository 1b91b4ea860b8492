package table

import (
	"encoding/binary"
	"net/netip"
	"structs"

	"sluice/xdp/abi"
)

// Pins of version 1, and what stood in it.
const (
	formerFlowsOut = "flows-out"
	formerFlowsIn  = "flows-in"

	formerReplied = 1
	formerClosing = 2
)

// formerFlowKey is in the direction of the flow's first packet; sizes and offsets are those of the v1 struct flow_key.
type formerFlowKey struct {
	Src, Dst     abi.Addr
	Sport, Dport [2]byte
	Protocol     uint8
	Scope        [3]uint8
}

// today is the key of both directions, and which end of it sent the first packet.
func (k formerFlowKey) today() (key abi.FlowKey, opener int) {
	key, opener = abi.KeyOf(netip.AddrFrom16(k.Src), netip.AddrFrom16(k.Dst), binary.BigEndian.Uint16(k.Sport[:]), binary.BigEndian.Uint16(k.Dport[:]), k.Protocol)
	key.Scope = k.Scope
	return key, opener
}

type formerFlow struct {
	LastNs uint64
	Flags  uint32
	_      uint32
}

const (
	sizeFlowKey = 40

	protocolTCP = 6
	protocolUDP = 17
)

// expired goes by flow_timeout of version 1.
func (f formerFlow) expired(protocol uint8, now uint64) bool {
	timeout := 60 * second
	switch {
	case protocol == protocolTCP && f.Flags&formerClosing != 0:
		timeout = 30 * second
	case protocol == protocolTCP && f.Flags&formerReplied != 0:
		timeout = 7440 * second
	case protocol == protocolUDP && f.Flags&formerReplied != 0:
		timeout = 180 * second
	}
	return int64(now-f.LastNs) > int64(timeout) // as flow_expired() has it
}

// flowFrom1 keeps the direction, the state and the time of the last packet. When a flow began, what it counted and which rule
// let it in were not known: it is as old as its last packet, and policy is asked about its next one. A TCP session that was
// answered counts as proven, or idle ones would be forgotten after a minute.
func flowFrom1(e entry, now uint64) (entry, bool) {
	key, was := Read[formerFlowKey](e.key), Read[formerFlow](e.value)
	if was.expired(key.Protocol, now) {
		return entry{}, false
	}
	to, opener := key.today()
	flow := flow2{LastNs: was.LastNs, SinceNs: was.LastNs, Opener: uint8(opener), State: uint8(abi.FlowNew)}
	inside := e.pin == formerFlowsOut
	if inside {
		flow.Flags |= abi.FlowInside
	}
	replied, tcp := was.Flags&formerReplied != 0, key.Protocol == protocolTCP
	proven := replied && (tcp || inside)
	switch {
	case tcp && replied && was.Flags&formerClosing != 0:
		flow.State = uint8(abi.FlowClosing)
	case tcp && was.Flags&formerClosing != 0:
		flow.State = uint8(abi.FlowClosed)
	case proven:
		flow.State = uint8(abi.FlowEstablished)
	case replied:
		flow.State = uint8(abi.FlowReplied)
	}
	at := freshTable(flow.Flags)
	if proven {
		at = Flows
	}
	return entry{sharedPins[at].pin, bytesOf(to), bytesOf(flow)}, true
}

// flow2 is what stood in the flow tables of version 2; the keys and the translations were today's.
type flow2 struct {
	_                            structs.HostLayout
	LastNs, SinceNs, Epoch       uint64
	NatAddr                      abi.Addr
	At, In, Owner                uint32
	Rule                         [2]uint32
	Seq                          uint32
	NatPort                      [2]byte
	State, Flags, Opener, Judged uint8
	_                            [2]byte
	Side                         [2]abi.FlowSide
}

// flowFrom2 keeps all that was known. How its directions go on was not.
func flowFrom2(e entry, _ uint64) (entry, bool) {
	if e.pin == sharedPins[Translations].pin {
		return e, true
	}
	was := Read[flow2](e.value)
	e.value = bytesOf(abi.Flow{
		LastNs: was.LastNs, SinceNs: was.SinceNs, Epoch: was.Epoch, NatAddr: was.NatAddr, NatPort: was.NatPort, At: was.At, In: was.In,
		Owner: was.Owner, Rule: was.Rule, Seq: was.Seq, State: was.State, Flags: was.Flags, Opener: was.Opener, Judged: was.Judged,
		Sent: was.Side[0], Answered: was.Side[1],
	})
	return e, true
}
