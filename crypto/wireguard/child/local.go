package child

import (
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// setLocal configures the address that packets come from which answer nothing; one that is not valid leaves it to routes. It says whether
// that is another one than before.
func (b *bind) setLocal(a netip.Addr) (turned bool) {
	a = a.Unmap()
	old := b.local.Swap(&a)
	if turned = old != nil && *old != a; turned {
		b.turned.Store(time.Now().UnixNano())
	}
	b.look()
	return turned
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
	if b.resting.Load() == resting {
		return false
	}
	b.turned.Store(time.Now().UnixNano()) // first: what comes in behind the change has to find it
	b.resting.Store(resting)
	return true
}

// turning says whether another address than before has been the source for less than greetPause. What comes in meanwhile was sent to the one
// before: an answer from there would keep the peer there.
func (b *bind) turning() bool {
	at := b.turned.Load()
	if at == 0 {
		return false
	}
	if time.Since(time.Unix(0, at)) < greetPause {
		return true
	}
	b.turned.CompareAndSwap(at, 0)
	return false
}

// reachable asks for the one interface: a dump of all, each time that a route changes, would cost every tunnel what all tunnels are.
func reachable(a netip.Addr) bool {
	list, err := netdump.List(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return true
	}
	for _, has := range list {
		if ip, ok := netip.AddrFromSlice(has.IP); ok && ip.Unmap() == a.WithZone("") {
			link, err := netlink.LinkByIndex(has.LinkIndex)
			return err != nil || link.Attrs().RawFlags&(unix.IFF_UP|unix.IFF_RUNNING) == unix.IFF_UP|unix.IFF_RUNNING
		}
	}
	return true
}
