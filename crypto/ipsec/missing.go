package ipsec

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Missing returns the kernel modules that ESP tunnels need and that neither are there nor can be loaded, by trying each in
// a network namespace of its own, where nobody sees it.
func Missing(ctx context.Context) ([]string, error) {
	type answer struct {
		names []string
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		// Never unlocked: the thread, and with it the namespace, ends with this goroutine.
		runtime.LockOSThread()
		names, err := missing()
		done <- answer{names, err}
	}()
	select {
	case a := <-done:
		return a.names, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func missing() ([]string, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("probe for IPsec: new network namespace: %w", err)
	}
	defer ns.Close()
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("probe for IPsec: %w", err)
	}
	defer nl.Close()
	x, err := openXFRM()
	if err != nil {
		return nil, err
	}
	defer x.close()
	var names []string
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe"
	if err := nl.LinkAdd(&netlink.Xfrmi{LinkAttrs: attrs, Ifid: ourRange}); errors.Is(err, unix.EOPNOTSUPP) {
		names = append(names, "xfrm_interface")
	} else if err != nil {
		return nil, fmt.Errorf("probe for IPsec: %w", err)
	}
	key := func() (k [keySize]byte) { return k }
	for _, p := range []struct{ module, src, dst string }{{"esp4", "192.0.2.1", "192.0.2.2"}, {"esp6", "2001:db8::1", "2001:db8::2"}} {
		s := sa{src: netip.MustParseAddr(p.src), dst: netip.MustParseAddr(p.dst), spi: 256, ifID: ourRange, window: 32, key: key}
		switch err := x.addState(s); {
		case err == nil:
		case x.socket == nil: // no socket: nothing else can be tried
			return append(names, "xfrm_user"), nil
		case errors.Is(err, unix.EPROTONOSUPPORT):
			names = append(names, p.module)
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOSYS):
			return append(names, "gcm, seqiv or what they need (CONFIG_CRYPTO_GCM, CONFIG_CRYPTO_SEQIV)"), nil
		default:
			return nil, fmt.Errorf("probe for IPsec: %w", err)
		}
	}
	return names, nil
}

// explain adds to an error what the kernel lacks, if that may be the cause.
func explain(err error) error {
	lacks := false
	for _, e := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.ENOENT, unix.ENOSYS, unix.ENOPROTOOPT} {
		lacks = lacks || errors.Is(err, e) || strings.Contains(err.Error(), e.Error())
	}
	if !lacks {
		return err
	}
	names, probe := Missing(context.Background())
	if probe != nil || len(names) == 0 {
		return errors.Join(err, probe)
	}
	return fmt.Errorf("%w: %s; load them (modprobe), boot a kernel that has them, or use type: wireguard (%w)",
		ErrNoModule, strings.Join(names, ", "), err)
}
