package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/crypto/path"
)

const (
	// routesPause bounds how often changed routes are looked at: a full table that comes by BGP is a million messages.
	routesPause = time.Second
	// routesBuffer is small on purpose: what does not fit is lost, and its loss says as much as the messages do.
	routesBuffer = 32 << 10
	// routesAtOnce bounds how long messages are thrown away on end.
	routesAtOnce = 1000
)

// WatchRoutes tells that links or routes changed, those into tunnels excepted, until ctx ends. It does not say what changed, and
// tells of it once a second at most. It watches the network namespace of the calling thread.
func WatchRoutes(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	file := os.NewFile(uintptr(fd), "netlink")
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, routesBuffer)
	if err == nil {
		groups := uint32(1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1))
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	var raw syscall.RawConn
	if err == nil {
		raw, err = file.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch routes: %w", err), file.Close())
	}
	context.AfterFunc(ctx, func() { _ = file.Close() }) // wakes the reader
	out := make(chan struct{}, 1)
	go func() {
		for raw.Read(news) == nil {
			poke(out)
			select {
			case <-ctx.Done():
			case <-time.After(routesPause):
			}
		}
	}()
	return out, nil
}

// news throws away what waits at a netlink socket, and says whether anything did that is not our own doing: each change of a peer
// would have the routes to a thousand looked up. ENOBUFS tells that more did than fits.
func news(fd uintptr) (any bool) {
	var message [unix.SizeofNlMsghdr + unix.SizeofRtMsg]byte
	for range routesAtOnce {
		n, _, err := unix.Recvfrom(int(fd), message[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return any
		case err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR):
			return true
		}
		// struct nlmsghdr: length, 4 bytes, and type, 2; both in host byte order.
		own := err == nil && n == len(message) && path.OwnNotice(binary.NativeEndian.Uint16(message[4:]), message[unix.SizeofNlMsghdr:])
		any = any || !own
	}
	return true
}
