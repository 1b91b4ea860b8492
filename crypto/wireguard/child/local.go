package child

import (
	"net"
	"net/netip"
)

// setLocal configures the address that packets come from which answer nothing; one that is not valid leaves it to routes.
func (b *bind) setLocal(a netip.Addr) {
	a = a.Unmap()
	b.local.Store(&a)
	b.look()
}

// configured is the address of setLocal, where it can be the source of what goes to an endpoint.
func (b *bind) configured(to *endpoint) place {
	a := b.local.Load()
	if a == nil || b.resting.Load() || a.Is4() != to.remote.Is4() {
		return place{}
	}
	return placeOf(*a, to.remote.scope)
}

// look sees whether the interface of the configured address is up, and says whether that is new. While it is not, an uplink that
// failed say, no answer finds its way to the address, and packets come from where routes lead. An address of no interface is tried.
func (b *bind) look() (turned bool) {
	a := b.local.Load()
	resting := a != nil && a.IsValid() && !reachable(*a)
	return b.resting.Swap(resting) != resting
}

func reachable(a netip.Addr) bool {
	list, err := net.Interfaces()
	if err != nil {
		return true
	}
	for _, iface := range list {
		addrs, err := iface.Addrs()
		if err != nil {
			continue
		}
		for _, has := range addrs {
			prefix, err := netip.ParsePrefix(has.String())
			if err == nil && prefix.Addr().WithZone("").Unmap() == a.WithZone("") {
				return iface.Flags&(net.FlagUp|net.FlagRunning) == net.FlagUp|net.FlagRunning
			}
		}
	}
	return true
}
