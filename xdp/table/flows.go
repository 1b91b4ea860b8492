package table

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

const second = uint64(1e9)

// flowLineage are the flow tables: version 1 was one LRU for each side that opens flows, keyed in the direction of the first
// packet. Translations come before the flows that they belong to, as programs write them.
var flowLineage = lineage{
	layouts: []layout{
		{version: 1, pins: []string{formerFlowsOut, formerFlowsIn}, up: flowFrom1},
		{version: 2, pins: flowPins, up: flowFrom2},
		{version: sharedPins[Flows].version, pins: flowPins},
	},
	last: func(e entry) uint64 {
		if e.pin == sharedPins[Translations].pin {
			return binary.NativeEndian.Uint64(e.value[sizeFlowKey:]) // since_ns: it is written once
		}
		return binary.NativeEndian.Uint64(e.value) // last_ns
	},
	open: openFlowTables,
}

// flowPins are those of version 2 and later.
var flowPins = []string{sharedPins[Translations].pin, sharedPins[Flows].pin, sharedPins[FreshOut].pin, sharedPins[FreshIn].pin}

// freshTable is where a flow stands that is not proven.
func freshTable(flags uint8) string {
	if flags&abi.FlowInside != 0 {
		return FreshOut
	}
	return FreshIn
}

// flowTables take entries of today's layout.
type flowTables struct {
	maps map[string]*ebpf.Map // by pin
	lost map[flowID]bool      // whose translation went to another flow while programs changed
}

// flowID is which flow one is.
type flowID struct {
	key   abi.FlowKey
	since uint64
}

func openFlowTables(dir *pin.Dir) (taker, error) {
	t := &flowTables{map[string]*ebpf.Map{}, map[flowID]bool{}}
	for _, name := range []string{Translations, Flows, FreshOut, FreshIn} {
		m, err := ReadShared(dir, name)
		if err == nil && m == nil {
			err = fmt.Errorf("state map %s is missing", name)
		}
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.maps[sharedPins[name].pin] = m
	}
	return t, nil
}

// Close closes the descriptors.
func (t *flowTables) Close() error { return CloseAll(t.maps) }

func (t *flowTables) take(e entry) error {
	if e.pin == sharedPins[Translations].pin {
		return t.takeTranslation(e)
	}
	key, flow := Read[abi.FlowKey](e.key), Read[abi.Flow](e.value)
	flow.There, flow.Back = abi.FlowWay{}, abi.FlowWay{} // a CPU may be writing one: it would stay claimed
	e.value = bytesOf(flow)
	if t.lost[flowID{key, flow.SinceNs}] {
		return t.forget(e.key, flow.SinceNs)
	}
	// Where it was proven meanwhile, or the other way round, it stands in two tables; the programs ask flows first.
	if e.pin != sharedPins[Flows].pin {
		if proven, err := t.merge(t.maps[sharedPins[Flows].pin], e.key, flow); err != nil || proven {
			return err
		}
	}
	err := t.put(t.maps[e.pin], e, flow)
	if errors.Is(err, errNoRoom) { // a smaller table than before: what is proven competes with what is not
		e.pin = sharedPins[freshTable(flow.Flags)].pin
		err = t.put(t.maps[e.pin], e, flow)
	}
	return err
}

var errNoRoom = errors.New("the table is full")

// put enters a flow, or merges it with what is there.
func (t *flowTables) put(m *ebpf.Map, e entry, flow abi.Flow) error {
	err := m.Update(e.key, e.value, ebpf.UpdateNoExist)
	switch {
	case errors.Is(err, ebpf.ErrKeyExist):
		_, err = t.merge(m, e.key, flow)
	case isFull(err):
		err = errNoRoom
	}
	return err
}

// merge brings a flow that is there already up to what a former table says of it; false: it is not there. What programs wrote
// since is kept: the later time, the further state, the larger counts.
func (t *flowTables) merge(m *ebpf.Map, key []byte, from abi.Flow) (bool, error) {
	var have abi.Flow
	err := m.Lookup(key, &have)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	merged := mergeFlows(have, from)
	if merged == have {
		return true, nil
	}
	merged.There, merged.Back = abi.FlowWay{}, abi.FlowWay{} // as in take
	if err := m.Update(key, merged, ebpf.UpdateExist); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return true, err
	}
	return true, nil
}

// mergeFlows: flows of one key that were never there at the same time are two, and the later one counts. By since_ns alone they
// cannot be told apart, which version 1 did not know; but those that share it are one, whose last_ns, of a coarser clock, may be earlier.
func mergeFlows(have, from abi.Flow) abi.Flow {
	one := from.SinceNs == have.SinceNs
	if !one && from.SinceNs > have.LastNs {
		return from
	}
	if !one && from.LastNs < have.SinceNs || from.Opener != have.Opener {
		return have
	}
	have.LastNs = max(have.LastNs, from.LastNs)
	have.State = max(have.State, from.State)
	if have.Flags&abi.FlowSeq == 0 {
		have.Seq = from.Seq
	}
	have.Flags |= from.Flags & (abi.FlowInside | abi.FlowSeq | abi.FlowFinOpener | abi.FlowFinOther | abi.FlowRst)
	have.Sent, have.Answered = further(have.Sent, from.Sent), further(have.Answered, from.Answered)
	return have
}

func further(a, b abi.FlowSide) abi.FlowSide {
	return abi.FlowSide{Packets: max(a.Packets, b.Packets), Bytes: max(a.Bytes, b.Bytes)}
}

// isFull says that a map has no room.
func isFull(err error) bool { return errors.Is(err, unix.E2BIG) }

// takeTranslation never changes one that is there: a port that another flow was given meanwhile is that one's, and the former
// flow begins anew with another.
func (t *flowTables) takeTranslation(e entry) error {
	m := t.maps[e.pin]
	err := m.Update(e.key, e.value, ebpf.UpdateNoExist)
	full := isFull(err)
	if !full && !errors.Is(err, ebpf.ErrKeyExist) {
		return err
	}
	var have abi.Translation
	from := Read[abi.Translation](e.value)
	if !full {
		if err := m.Lookup(e.key, &have); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	if have != from {
		t.lost[flowID{from.Inner, from.SinceNs}] = true
	}
	return nil
}

// forget deletes a flow that has lost its translation from wherever it stands.
func (t *flowTables) forget(key []byte, since uint64) error {
	for _, name := range []string{Flows, FreshOut, FreshIn} {
		var have abi.Flow
		m := t.maps[sharedPins[name].pin]
		if err := m.Lookup(key, &have); err != nil || have.SinceNs != since {
			continue
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}
