package netdump

import "net/netip"

// Metric is what the kernel's table has for the metric of a route: over IPv6 one that is written without gets IP6_RT_PRIO_USER.
func Metric(to netip.Prefix, written int) int {
	if written == 0 && to.Addr().Is6() {
		return 1024
	}
	return written
}
