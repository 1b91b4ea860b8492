package ipsec

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"sluice/netprobe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Missing returns the kernel modules that ESP tunnels need and that neither are there nor can be loaded, by trying each where
// nobody sees it.
func Missing(ctx context.Context) ([]string, error) {
	names, err := netprobe.Try(ctx, missing)
	if err != nil {
		return nil, fmt.Errorf("probe for IPsec: %w", err)
	}
	return names, nil
}

func missing(nl *netlink.Handle) ([]string, error) {
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
		return nil, err
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
			return nil, err
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
