package wireguard

import (
	"context"
	"fmt"

	"sluice/netprobe"

	"github.com/vishvananda/netlink"
)

// Capabilities are what this machine can do for WireGuard: nil it can, else why not.
type Capabilities struct {
	Kernel error // devices of the kernel's own
	TUN    error // those of the userspace backend
	Plug   error // the qdisc that holds the kernel's traffic while a key changes
}

// Probe tries each where nobody sees it. It loads the modules that an apply would.
func Probe(ctx context.Context) (Capabilities, error) {
	c, err := netprobe.Try(ctx, capabilities)
	if err != nil {
		return c, fmt.Errorf("probe for WireGuard: %w", err)
	}
	return c, nil
}

func capabilities(nl *netlink.Handle) (c Capabilities, err error) {
	named := func(name string) netlink.LinkAttrs {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return attrs
	}
	c.Kernel = nl.LinkAdd(&netlink.Wireguard{LinkAttrs: named("probe")})
	tun := &netlink.Tuntap{LinkAttrs: named("probetun"), Mode: netlink.TUNTAP_MODE_TUN, NonPersist: true}
	c.TUN = nl.LinkAdd(tun)
	for _, fd := range tun.Fds {
		fd.Close()
	}
	lo, err := nl.LinkByName("lo")
	if err != nil {
		return c, err
	}
	c.Plug = nl.QdiscAdd(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: plugHandle, Parent: netlink.HANDLE_ROOT}, QdiscType: "plug",
	})
	return c, nil
}
