package classify

import "slices"

// sameRule says whether two rules are the same in every field, which nil and empty lists are not.
func sameRule(a, b *Rule) bool {
	return sameBesideLists(a, b) && same(a.From, b.From) && same(a.To, b.To) && same(a.NotFrom, b.NotFrom) && same(a.NotTo, b.NotTo)
}

// sameBesideLists is about everything but addresses.
func sameBesideLists(a, b *Rule) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Protocol == b.Protocol && a.Action == b.Action && a.Shadow == b.Shadow &&
		same(a.Ports, b.Ports) && same(a.SourcePorts, b.SourcePorts) &&
		a.TCPMask == b.TCPMask && a.TCPFlags == b.TCPFlags && a.Fragment == b.Fragment && a.DSCP == b.DSCP && a.TTL == b.TTL &&
		a.Argument == b.Argument && a.Sample == b.Sample &&
		same(a.ICMPTypes, b.ICMPTypes) && same(a.VLANs, b.VLANs) && same(a.Lengths, b.Lengths) && same(a.Interfaces, b.Interfaces)
}

// same compares lists. Rules that were not touched have theirs in the same memory.
func same[T comparable](a, b []T) bool {
	if len(a) != len(b) || (a == nil) != (b == nil) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b)
}

// sameMemory says whether two lists are one.
func sameMemory[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
