// Package netprobe tries what a kernel can do in a network namespace that is thrown away, where nobody sees it.
package netprobe

import (
	"context"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Try runs f on a thread in a namespace of its own, with a handle of it; programs that f starts are in there, too. Links are named
// as f likes, and modules that f needs are loaded. What f has made ends with it. Where ctx ends first, f is not waited for.
func Try[T any](ctx context.Context, f func(*netlink.Handle) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		// Never unlocked: the thread, and with it the namespace, ends with this goroutine.
		runtime.LockOSThread()
		var a answer
		a.err = enter(func(nl *netlink.Handle) (err error) {
			a.value, err = f(nl)
			return err
		})
		done <- a
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func enter(f func(*netlink.Handle) error) error {
	ns, err := netns.New()
	if err != nil {
		return fmt.Errorf("new network namespace: %w", err)
	}
	defer ns.Close()
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("new network namespace: %w", err)
	}
	defer nl.Close()
	return f(nl)
}
