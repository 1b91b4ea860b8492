package classify

import "net/netip"

func prefixLists(r *Rule) [][]netip.Prefix {
	return [][]netip.Prefix{r.From, r.NotFrom, r.To, r.NotTo}
}

// neverMatches says why a rule matches no packet at all, or "".
func neverMatches(r *Rule) string {
	switch {
	case r.From != nil && len(r.From) == 0:
		return "from is an empty set"
	case r.To != nil && len(r.To) == 0:
		return "to is an empty set"
	case r.Ports != nil && len(r.Ports) == 0:
		return "ports is empty"
	case r.SourcePorts != nil && len(r.SourcePorts) == 0:
		return "source_ports is empty"
	}
	src4, src6 := families(r.From)
	dst4, dst6 := families(r.To)
	if !(src4 && dst4) && !(src6 && dst6) {
		return "from and to have no address family in common"
	}
	return ""
}

// families says which families a list has addresses of. nil: both.
func families(prefixes []netip.Prefix) (v4, v6 bool) {
	if prefixes == nil {
		return true, true
	}
	for _, p := range prefixes {
		v4 = v4 || p.Addr().Is4()
		v6 = v6 || p.Addr().Is6()
	}
	return v4, v6
}
