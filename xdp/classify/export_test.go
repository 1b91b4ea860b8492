package classify

import "net/netip"

// Steps is how many changes the last compilation stands behind one from scratch.
func (k *Cache) Steps() int {
	if k.last == nil {
		return 0
	}
	return k.last.steps
}

// SameRule is sameRule.
func SameRule(a, b *Rule) bool { return sameRule(a, b) }

// Outermost is outermost.
func Outermost(list []netip.Prefix) []netip.Prefix { return outermost(list) }
