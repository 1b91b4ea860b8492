package wireguard

import (
	"context"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Capabilities are what this machine can do for WireGuard: nil it can, else why not.
type Capabilities struct {
	Kernel error // devices of the kernel's own
	TUN    error // those of the userspace backend
	Plug   error // the qdisc that holds the kernel's traffic while a key changes
}

// Probe tries each in a network namespace of its own, where nobody sees it. It loads the modules that an apply would.
func Probe(ctx context.Context) (Capabilities, error) {
	type answer struct {
		capabilities Capabilities
		err          error
	}
	done := make(chan answer, 1)
	go func() {
		// Never unlocked: the thread, and with it the namespace and what was made in it, ends with this goroutine.
		runtime.LockOSThread()
		c, err := capabilities()
		done <- answer{c, err}
	}()
	select {
	case a := <-done:
		return a.capabilities, a.err
	case <-ctx.Done():
		return Capabilities{}, ctx.Err()
	}
}

func capabilities() (c Capabilities, err error) {
	ns, err := netns.New()
	if err != nil {
		return c, fmt.Errorf("probe for WireGuard: new network namespace: %w", err)
	}
	defer ns.Close()
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return c, fmt.Errorf("probe for WireGuard: %w", err)
	}
	defer nl.Close()
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
		return c, fmt.Errorf("probe for WireGuard: %w", err)
	}
	c.Plug = nl.QdiscAdd(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: plugHandle, Parent: netlink.HANDLE_ROOT}, QdiscType: "plug",
	})
	return c, nil
}
