package tc

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/table"
)

// fill writes the tables of a generation that no packet has seen yet, or that none is in any more.
func (s *Subsystem) fill(m map[string]*ebpf.Map, t *classify.Tables, on *links, key string, g Generation) error {
	if err := s.written.Fill(m, t); err != nil {
		return err
	}
	if err := table.Clear(m, tcMapSelf, tcMapInterfaces, tcMapWorkloads, tcMapStrict4, tcMapStrict6, tcMapRates, tcMapAnnounced4, tcMapAnnounced6); err != nil {
		return err
	}
	if err := table.FillSelf(m[tcMapSelf], g.Self); err != nil {
		return err
	}
	for ifindex, entry := range on.entries {
		if err := m[tcMapInterfaces].Put(uint32(ifindex), entry); err != nil {
			return fmt.Errorf("map of interfaces: %w", err)
		}
	}
	if err := table.FillArray(m, tcMapInterfacesNear, on.near()); err != nil {
		return err
	}
	if err := fillWorkloads(m[tcMapWorkloads], on, g.Workloads); err != nil {
		return err
	}
	if err := fillStrict(m[tcMapStrict4], m[tcMapStrict6], on, g); err != nil {
		return err
	}
	if err := fillSNAT(m, g); err != nil {
		return err
	}
	if err := m[tcMapSettings].Put(uint32(0), settings(key, g)); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	if err := fillRates(m[tcMapRates], on, g.Paced); err != nil {
		return err
	}
	return table.FillLimiters(m[tcMapLimiters], g.Limiters)
}

// near has each interface where the low bits of its index lead. Of two that share them one is there.
func (l *links) near() []abi.InterfaceNear {
	near := make([]abi.InterfaceNear, abi.InterfaceSlots)
	for ifindex, entry := range l.entries {
		near[ifindex%abi.InterfaceSlots] = abi.InterfaceNear{Ifindex: uint32(ifindex), Interface: entry}
	}
	return near
}

// settings are what the programs know of a generation beside its tables. One flow owner may have half of the flow table.
func settings(key string, g Generation) abi.GenerationSettings {
	return abi.GenerationSettings{SelfBits: table.SelfBits(g.Self), Epoch: epoch(key), Share: max(g.FlowSlots/2, 1),
		SnatFirst: g.SNATPorts.First, SnatLast: g.SNATPorts.Last}
}

// epoch tells a generation's judgement of flows from others': it depends on all that the generation is, so that one which
// comes back finds its own.
func epoch(key string) uint64 {
	sum := sha256.Sum256([]byte(key))
	return max(binary.LittleEndian.Uint64(sum[:]), 1) // 0 is none
}

func fillWorkloads(m *ebpf.Map, on *links, workloads []Workload) error {
	for i, w := range workloads {
		entry := abi.Workload{Ifindex: uint32(on.index[w.Interface]), Index: uint32(i)}
		entry.Flags = uint32(on.entries[on.index[w.Interface]].Flags & abi.InterfaceStack)
		for _, a := range w.Addresses {
			// Two workloads with one address would be a hole in the check for spoofed sources.
			if err := m.Update(table.SelfKey(a), entry, ebpf.UpdateNoExist); err != nil {
				return fmt.Errorf("workload %s: address %s: %w", w.Name, a, err)
			}
		}
	}
	return nil
}

// fillPrefixes writes a list into the maps of its families, with one value.
func fillPrefixes(m4, m6 *ebpf.Map, value uint32, prefixes ...netip.Prefix) error {
	v4, v6 := splitFamilies(prefixes)
	for _, p := range v4 {
		key := abi.Prefix4Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}
		if err := m4.Put(key, value); err != nil {
			return fmt.Errorf("prefix %s: %w", p, err)
		}
	}
	for _, p := range v6 {
		key := abi.Prefix6Key{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}
		if err := m6.Put(key, value); err != nil {
			return fmt.Errorf("prefix %s: %w", p, err)
		}
	}
	return nil
}
