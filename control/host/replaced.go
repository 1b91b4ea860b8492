package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// replacedRoom is how many bytes of messages wait in the kernel: a routing daemon may replace a whole table at once.
const replacedRoom = 1 << 20

// WatchReplaced calls replaced for every route that a process puts in the place of another one, until ctx ends, but for those of these
// protocols. What stood there the kernel does not tell: it had that prefix, table and metric. Neither function may block; lost is called
// where messages were. The socket is not that of Watch, whose messages shall not be lost with these.
func (h *Host) WatchReplaced(ctx context.Context, replaced func(Gone), lost func(), but ...byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("subscribe to replaced routes: %w", err)
	}
	f := os.NewFile(uintptr(fd), "replaced routes")
	program := replacedFilter(but)
	err = errors.Join( // the filter stands before the first message
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)}))
	if err != nil {
		return errors.Join(fmt.Errorf("subscribe to replaced routes: %w", err), f.Close())
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, replacedRoom) // with less, more is lost, which is told
	context.AfterFunc(ctx, func() { f.Close() })                                   // wakes the reader
	go func() {
		if err := readReplaced(f, replaced, lost); !errors.Is(err, os.ErrClosed) {
			h.log.Warn("no more events of routes that somebody replaces: the inspection sees them", "error", err)
			lost()
		}
	}()
	return nil
}

// readReplaced has one buffer for all messages: there may be a million. It returns what ended the reading.
func readReplaced(f *os.File, replaced func(Gone), lost func()) error {
	buffer := make([]byte, nl.RECEIVE_BUFFER_SIZE)
	for {
		n, err := f.Read(buffer)
		if errors.Is(err, unix.ENOBUFS) {
			lost()
			continue
		}
		if err != nil {
			return err
		}
		messages, _ := syscall.ParseNetlinkMessage(buffer[:n]) // what cannot be read is not there
		for _, m := range messages {
			if g, ok := goneRoute(m.Data); ok {
				replaced(g)
			}
		}
	}
}

// replacedFilter lets through what WatchReplaced is about. The kernel sets NLM_F_REPLACE only where there was a route. See watchFilter.
func replacedFilter(but []byte) []unix.SockFilter {
	const typeAt, flagsAt, portAt, protocolAt = 4, 6, 12, unix.SizeofNlMsghdr + 5
	const load, is, has, ret = unix.BPF_LD | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	none := unix.SockFilter{Code: ret, K: 0}
	f := []unix.SockFilter{
		{Code: load | unix.BPF_H, K: typeAt}, {Code: is, K: swapped(unix.RTM_NEWROUTE), Jt: 1}, none,
		{Code: load | unix.BPF_H, K: flagsAt}, {Code: has, K: swapped(unix.NLM_F_REPLACE), Jt: 1}, none,
		{Code: load | unix.BPF_W, K: portAt}, {Code: is, K: 0, Jf: 1}, none, // the kernel's own
		{Code: load | unix.BPF_B, K: protocolAt},
	}
	for _, p := range but {
		f = append(f, unix.SockFilter{Code: is, K: uint32(p), Jf: 1}, none)
	}
	return append(f, unix.SockFilter{Code: ret, K: 0xffffffff})
}
