package progruntc_test

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/tests/flowmodel"
	"sluice/xdp/abi"
	"sluice/xdp/table"
)

// tables are what the kernel holds, in the model's words.
type tables struct {
	flows        map[flowmodel.Key]kernelFlow
	translations map[flowmodel.Key]abi.Translation
}

type kernelFlow struct {
	abi.Flow
	table flowmodel.Table
	raw   abi.FlowKey
}

var stateMaps = map[flowmodel.Table]string{flowmodel.Proven: table.Flows, flowmodel.FreshOut: table.FreshOut, flowmodel.FreshIn: table.FreshIn}

// batch reads all of a map, many entries with a call.
func batch[K, V any](m *ebpf.Map) (keys []K, values []V, err error) {
	const some = 512 // more than one bucket of the hash holds
	k, v := make([]K, some), make([]V, some)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, k, v, nil)
		keys, values = append(keys, k[:n]...), append(values, v[:n]...)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return keys, values, nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

func (m *modelSite) read() (tables, error) {
	out := tables{map[flowmodel.Key]kernelFlow{}, map[flowmodel.Key]abi.Translation{}}
	for at, name := range stateMaps {
		keys, values, err := batch[abi.FlowKey, abi.Flow](m.maps[name])
		if err != nil {
			return out, fmt.Errorf("%s: %w", name, err)
		}
		for i, raw := range keys {
			k, err := m.key(raw)
			if err != nil {
				return out, err
			}
			if twice, ok := out.flows[k]; ok {
				return out, fmt.Errorf("%s stands in %s and in %s", k, twice.table, at)
			}
			out.flows[k] = kernelFlow{values[i], at, raw}
		}
	}
	keys, values, err := batch[abi.FlowKey, abi.Translation](m.maps[table.Translations])
	if err != nil {
		return out, fmt.Errorf("translations: %w", err)
	}
	for i, raw := range keys {
		k, err := m.key(raw)
		if err != nil {
			return out, err
		}
		out.translations[k] = values[i]
	}
	return out, nil
}

// key checks the order of the ends as well.
func (m *modelSite) key(raw abi.FlowKey) (flowmodel.Key, error) {
	half := func(end, i int) uint64 { return binary.LittleEndian.Uint64(raw.Addr[end][8*i:]) }
	port := func(end int) uint16 { return binary.LittleEndian.Uint16(raw.Port[end][:]) }
	if cmp.Or(cmp.Compare(half(0, 0), half(1, 0)), cmp.Compare(half(0, 1), half(1, 1)), cmp.Compare(port(0), port(1))) > 0 {
		return flowmodel.Key{}, fmt.Errorf("the ends of the key %v are in the wrong order", raw)
	}
	scope := ""
	if at := uint32(raw.Scope[0]) | uint32(raw.Scope[1])<<8 | uint32(raw.Scope[2])<<16; at != 0 {
		scope = m.names[at]
	}
	return flowmodel.KeyOf(raw.Protocol, endOf(raw, 0), endOf(raw, 1), scope), nil
}

func endOf(raw abi.FlowKey, end int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(raw.Addr[end]).Unmap(), binary.BigEndian.Uint16(raw.Port[end][:]))
}

// births tells whether both count a flow for the same one, or for a new one of the same key.
type births map[flowmodel.Key]struct {
	since uint64
	birth int
}

// epochs are the kernel's numbers of the generations.
type epochs map[uint64]int

// compare says how the kernel's tables differ from the model's; "" is not at all.
func (m *modelSite) compare(model *flowmodel.Model, had births, known epochs) error {
	have, err := m.read()
	if err != nil {
		return err
	}
	for k, f := range model.Flows {
		if model.Find(k) == nil {
			delete(had, k) // the kernel may have begun another in its place, or swept it
			continue
		}
		got, ok := have.flows[k]
		if !ok {
			return fmt.Errorf("the flow %s is missing", f)
		}
		if err := m.compareFlow(model, f, got, known); err != nil {
			return fmt.Errorf("%w\nmodel:  %s\nkernel: %s", err, f, m.text(got))
		}
		if was, ok := had[k]; ok && (was.since == got.SinceNs) != (was.birth == f.Birth) {
			return fmt.Errorf("%s began at %d and then at %d; the model counts it as number %d and then %d", k, was.since, got.SinceNs, was.birth, f.Birth)
		}
		had[k] = struct {
			since uint64
			birth int
		}{got.SinceNs, f.Birth}
	}
	for k, got := range have.flows {
		if model.Flows[k] == nil {
			return fmt.Errorf("a flow that should not be: %s %s", k, m.text(got))
		}
	}
	return m.compareTranslations(model, have)
}

func (m *modelSite) compareFlow(model *flowmodel.Model, f *flowmodel.Flow, got kernelFlow, known epochs) error {
	want := func(what string, want, got any) error {
		if want != got {
			return fmt.Errorf("%s is %v, want %v", what, got, want)
		}
		return nil
	}
	at := flowmodel.Hook{Interface: m.names[got.At&^abi.FlowAtEgress], Egress: got.At&abi.FlowAtEgress != 0}
	nat := netip.AddrPort{}
	if got.Flags&abi.FlowNat != 0 {
		nat = netip.AddrPortFrom(netip.AddrFrom16(got.NatAddr).Unmap(), binary.BigEndian.Uint16(got.NatPort[:]))
	}
	state := flowmodel.State(got.State)
	if f.Key.Protocol != 6 && f.State() == flowmodel.Established && state == flowmodel.Replied {
		state = flowmodel.Established // of what is no TCP that is the same
	}
	epoch, seen := known[got.Epoch]
	if !seen && got.Epoch != 0 {
		epoch = f.Epoch
		known[got.Epoch] = epoch
	}
	return errors.Join(
		want("table", f.Table, got.table),
		want("opener", f.Opener, endOf(got.raw, int(got.Opener&1))),
		want("inside", f.Inside, got.Flags&abi.FlowInside != 0),
		want("owner", f.Owner, m.names[got.Owner]),
		want("state", f.State(), state),
		want("generation", f.Epoch, epoch),
		want("hook", f.At, at),
		want("entry", f.In, m.names[got.In]),
		want("rules", f.Rules, got.Rule),
		want("judged", f.Judged, abi.Reason(got.Judged)),
		want("translation", f.NAT, nat),
		want("packets", f.Packets, [2]uint64{got.Sent.Packets, got.Answered.Packets}),
		want("bytes", f.Bytes, [2]uint64{got.Sent.Bytes, got.Answered.Bytes}),
		idle(model, f, got),
	)
}

func idle(model *flowmodel.Model, f *flowmodel.Flow, got kernelFlow) error {
	want, is := model.Now-f.Last, time.Duration(modelClock()-int64(got.LastNs))
	if away := is - want; away < -1200*time.Millisecond || away > 1200*time.Millisecond {
		return fmt.Errorf("idle for %s, want %s", is, want)
	}
	return nil
}

// compareTranslations: each translated flow has its way back. What is beyond is stale, and holds for nothing.
func (m *modelSite) compareTranslations(model *flowmodel.Model, have tables) error {
	for wire, w := range model.Wires {
		f := model.Find(w.Inner)
		if f == nil || f.Birth != w.Birth {
			continue
		}
		got, ok := have.translations[wire]
		if !ok {
			return fmt.Errorf("%s has no translation %s", f, wire)
		}
		inner, err := m.key(got.Inner)
		if err != nil {
			return err
		}
		flow := have.flows[inner]
		if inner != w.Inner || got.SinceNs != flow.SinceNs || got.Addr != flow.NatAddr || got.Port != flow.NatPort {
			return fmt.Errorf("the translation %s leads to %s (%+v), want %s", wire, inner, got, f)
		}
	}
	return nil
}

func (m *modelSite) text(f kernelFlow) string {
	return fmt.Sprintf("state %d flags %#x opener %s in %s, owner %q, at %q (%#x) epoch %#x judged %s, rules %v, nat %s:%d, sides %v, seq %d",
		f.State, f.Flags, endOf(f.raw, int(f.Opener&1)), f.table, m.names[f.Owner], m.names[f.At&^abi.FlowAtEgress], f.At, f.Epoch,
		abi.Reason(f.Judged), f.Rule, netip.AddrFrom16(f.NatAddr).Unmap(), binary.BigEndian.Uint16(f.NatPort[:]), [2]abi.FlowSide{f.Sent, f.Answered}, f.Seq)
}

// age lets time pass: the clock cannot be moved, but what it is compared with can.
func (m *modelSite) age(had births, d time.Duration) error {
	if err := m.forgetFragments(); err != nil {
		return err
	}
	for _, name := range stateMaps {
		if err := rewrite(m.maps[name], func(f *abi.Flow) {
			f.LastNs -= uint64(d)
			f.SinceNs = earlier(f.SinceNs, d)
		}); err != nil {
			return err
		}
	}
	for k, b := range had {
		b.since = earlier(b.since, d)
		had[k] = b
	}
	return errors.Join(
		rewrite(m.maps[table.Translations], func(tr *abi.Translation) { tr.SinceNs = earlier(tr.SinceNs, d) }),
		age[abi.SnatFragmentKey](m.maps[table.SNATFragments], d))
}

// earlier is a time before; where that would be before the machine started, half way there: long ago too, and still
// another one for each.
func earlier(ns uint64, d time.Duration) uint64 {
	if ns <= uint64(d) {
		return ns / 2
	}
	return ns - uint64(d)
}

func rewrite[V any](m *ebpf.Map, change func(*V)) error { return rewriteKeys[abi.FlowKey](m, change) }

func age[K any](m *ebpf.Map, d time.Duration) error {
	return rewriteKeys[K](m, func(f *abi.SnatFragment) { f.Ns -= uint64(d) })
}

func rewriteKeys[K, V any](m *ebpf.Map, change func(*V)) error {
	keys, values, err := batch[K, V](m)
	if err != nil {
		return err
	}
	for i, k := range keys {
		change(&values[i])
		if err := m.Update(k, &values[i], ebpf.UpdateExist); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

func modelClock() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return now.Nano()
}
