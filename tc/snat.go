package tc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// enter writes s into an interface's entry.
func (s SNAT) enter(entry *abi.Interface) {
	for _, f := range []struct {
		set  bool
		flag uint8
	}{{s.IPv4, abi.InterfaceSnat4}, {s.IPv6, abi.InterfaceSnat6}, {s.All, abi.InterfaceSnatAll}} {
		if f.set {
			entry.Flags |= f.flag
		}
	}
	entry.Snat = s.Address
}

// seenSNAT is what enter wrote.
func seenSNAT(entry abi.Interface) SNAT {
	has := func(flag uint8) bool { return entry.Flags&flag != 0 }
	return SNAT{IPv4: has(abi.InterfaceSnat4), IPv6: has(abi.InterfaceSnat6), All: has(abi.InterfaceSnatAll), Address: entry.Snat}
}

func fillSNAT(m map[string]*ebpf.Map, g Generation) error {
	for i, a := range g.SNATAddresses {
		var to abi.SnatAddress
		if a.IPv4.IsValid() {
			to.V4 = table.SelfKey(a.IPv4)
		}
		if a.IPv6.IsValid() {
			to.V6 = table.SelfKey(a.IPv6)
		}
		if err := m[tcMapSnatAddresses].Put(uint32(i), to); err != nil {
			return fmt.Errorf("snat address %d: %w", i+1, err)
		}
	}
	return fillPrefixes(m[tcMapAnnounced4], m[tcMapAnnounced6], 1, g.Announced...)
}

// Exhaustion says how many packets found no port to translate their source to, and tells of the last one's flow.
type Exhaustion struct {
	Packets     uint64
	Interface   uint32 // index: by which the packet came in
	Source      netip.AddrPort
	Destination netip.AddrPort
	Protocol    uint8
	Address     netip.Addr // that the source was to become
}

// Exhausted reads what the programs of all generations have noted. The flow may be another than the one that was counted last.
func (s *Subsystem) Exhausted(ctx context.Context) (Exhaustion, error) {
	if err := ctx.Err(); err != nil {
		return Exhaustion{}, err
	}
	m, err := table.ReadShared(pin.At(s.dir), table.SNATExhausted)
	if err != nil || m == nil {
		return Exhaustion{}, err
	}
	var last abi.SnatExhaustion
	if err := errors.Join(m.Lookup(uint32(0), &last), m.Close()); err != nil {
		return Exhaustion{}, fmt.Errorf("exhausted snat: %w", err)
	}
	end := func(i uint8) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(last.Key.Addr[i]).Unmap(), binary.BigEndian.Uint16(last.Key.Port[i][:]))
	}
	return Exhaustion{Packets: last.Packets, Interface: last.In, Source: end(last.End & 1), Destination: end(^last.End & 1),
		Protocol: last.Key.Protocol, Address: netip.AddrFrom16(last.Addr).Unmap()}, nil
}
