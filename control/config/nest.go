package config

import "net/netip"

// nest are values by prefix, for who asks which prefixes lie around another one. It knows what lengths there are: most files write
// two or three of the 33, or 129.
type nest[V any] struct {
	of      map[netip.Prefix]V
	lengths [2][129]bool // of IPv4 and IPv6
}

func width(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// put takes a masked prefix.
func (n *nest[V]) put(p netip.Prefix, v V) {
	if n.of == nil {
		n.of = map[netip.Prefix]V{}
	}
	n.of[p] = v
	n.lengths[width(p.Addr())][p.Bits()] = true
}

// around calls yield with every prefix around p, p itself included, the longest first.
func (n *nest[V]) around(p netip.Prefix, yield func(netip.Prefix, V) bool) {
	lengths := &n.lengths[width(p.Addr())]
	for bits := p.Bits(); bits >= 0; bits-- {
		if !lengths[bits] {
			continue
		}
		wide := netip.PrefixFrom(p.Addr(), bits).Masked()
		if v, ok := n.of[wide]; ok && !yield(wide, v) {
			return
		}
	}
}
