package xdp

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/table"
)

// writeFailsafe gives the roots what they honour under xdp.fail: closed. Only an empty slot makes them look, so entries
// may change one by one.
func (s *Subsystem) writeFailsafe(m *stateMaps, g Generation) error {
	entries := s.failsafeEntries(g.Failsafe)
	if len(entries) > abi.MaxFailsafe {
		return fmt.Errorf("management: makes %d entries of prefix and port range, %d fit: merge prefixes or ports",
			len(entries), abi.MaxFailsafe)
	}
	if len(g.Self) > abi.MaxSelf {
		return fmt.Errorf("the box has %d own addresses, %d fit", len(g.Self), abi.MaxSelf)
	}
	for i := range uint32(abi.MaxFailsafe) {
		var entry abi.Failsafe
		if int(i) < len(entries) {
			entry = entries[i]
		}
		if err := m.failsafe.Put(i, entry); err != nil {
			return fmt.Errorf("map failsafe: %w", err)
		}
	}
	return writeSelf(m.self, g.Self)
}

// writeSelf adds before it deletes: an address that stays is never missing.
func writeSelf(m *ebpf.Map, self []netip.Addr) error {
	want := map[abi.Addr]bool{}
	for _, a := range self {
		want[table.SelfKey(a)] = true
	}
	var (
		key  abi.Addr
		one  uint8
		gone []abi.Addr
	)
	entries := m.Iterate()
	for entries.Next(&key, &one) {
		if !want[key] {
			gone = append(gone, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("map of own addresses: %w", err)
	}
	for key := range want {
		if err := m.Put(key, uint8(1)); err != nil {
			return fmt.Errorf("map of own addresses: %w", err)
		}
	}
	for _, key := range gone {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("map of own addresses: %w", err)
		}
	}
	return nil
}

// failsafeEntries says a policy in the root's plain form: from, protocol, destination ports. A rule that needs more is
// left out, which errs on the closed side. To is not needed: the root asks for the box's own addresses.
func (s *Subsystem) failsafeEntries(p classify.Policy) []abi.Failsafe {
	var entries []abi.Failsafe
	for _, r := range p.Rules {
		if r.Action != classify.Accept || r.Shadow {
			continue
		}
		if len(r.NotFrom) > 0 || len(r.NotTo) > 0 || len(r.SourcePorts) > 0 || !r.Plain() {
			s.log.Warn("rule cannot be honoured while no generation is loaded", "rule", p.Name+"/"+r.Name)
			continue
		}
		from := r.From
		if from == nil {
			from = []netip.Prefix{{}}
		}
		ports := r.Ports
		if ports == nil {
			ports = []classify.PortRange{{First: 0, Last: 0xffff}}
		}
		for _, prefix := range from {
			for _, ports := range ports {
				entries = append(entries, failsafeEntry(prefix, r.Protocol, ports))
			}
		}
	}
	return entries
}

// failsafeEntry takes an invalid prefix for "any address of either family".
func failsafeEntry(from netip.Prefix, protocol int, ports classify.PortRange) abi.Failsafe {
	e := abi.Failsafe{Ports: abi.PortRange{First: ports.First, Last: ports.Last}, Used: 1}
	if protocol == classify.AnyProtocol {
		e.AnyProtocol = 1
	} else {
		e.Protocol = uint8(protocol)
	}
	if !from.IsValid() {
		return e
	}
	bits := from.Bits()
	if from.Addr().Is4() {
		bits += 96 // behind ::ffff:0:0/96, which the mask covers
	}
	e.From = from.Masked().Addr().As16()
	for i := range bits {
		e.Mask[i/8] |= 0x80 >> (i % 8)
	}
	return e
}
