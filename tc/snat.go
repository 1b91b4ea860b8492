package tc

import (
	"sluice/xdp/abi"
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
