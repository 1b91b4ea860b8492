package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// errNoNamespace says that a namespace has neither a name nor a process by which it could be entered.
var errNoNamespace = errors.New("its network namespace has no name below /run/netns and no process in it that is seen from here")

// Here, in the place of a link, is the box itself.
const Here = ""

// Behind is what stands behind the interface of a workload.
type Behind struct {
	Kind string // of the interface, as LinkFact.Kind
	// Options of TCP that the namespace is set not to take, where it can be entered.
	NoSACK, NoWindowScaling bool
	// Unreachable says why the network namespace at the other end cannot be entered; "": it can, or nobody may ask.
	Unreachable string
}

// WorkloadsBehind looks behind the named interfaces of the calling thread's network namespace. Those that are not here are left out,
// and Here stands for that namespace. Without root the namespaces of others are not to be seen, and none is called unreachable.
func WorkloadsBehind(ctx context.Context, names []string) (map[string]Behind, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer nl.Close()
	out := map[string]Behind{}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if name == Here {
			var b Behind
			if err := b.readTCP(); err != nil {
				return nil, err
			}
			out[name] = b
			continue
		}
		link, err := nl.LinkByName(name)
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up interface %s: %w", name, err)
		}
		b := Behind{Kind: kindOf(link)}
		if b.Kind == "veth" && os.Geteuid() == 0 {
			ns, err := namespaceBehind(nl, link)
			if err == nil {
				err = errors.Join(inside(ns, b.readTCP), ns.Close())
			}
			if err != nil {
				b.Unreachable = err.Error()
			}
		}
		out[name] = b
	}
	return out, nil
}

// readTCP looks at the namespace of the calling thread.
func (b *Behind) readTCP() error {
	for path, refused := range map[string]*bool{"net/ipv4/tcp_sack": &b.NoSACK, "net/ipv4/tcp_window_scaling": &b.NoWindowScaling} {
		value, err := readSysctl(path)
		if err != nil {
			return fmt.Errorf("read a sysctl: %w", err)
		}
		*refused = value == "0"
	}
	return nil
}

// namespaceBehind opens the network namespace of a veth's other end. The kernel tells its id alone, as of this namespace, so
// every namespace that can be found is asked for its own.
func namespaceBehind(nl *netlink.Handle, link netlink.Link) (netns.NsHandle, error) {
	id := link.Attrs().NetNsID
	if id < 0 {
		return netns.None(), errors.New("its other end is in this network namespace")
	}
	asked := map[uint64]bool{} // by inode
	for _, pattern := range []string{"/run/netns/*", "/proc/[0-9]*/ns/net", "/proc/[0-9]*/task/[0-9]*/ns/net"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return netns.None(), err
		}
		for _, path := range paths {
			var stat unix.Stat_t
			if unix.Stat(path, &stat) != nil || asked[stat.Ino] { // a process that ended, or is not ours to see
				continue
			}
			asked[stat.Ino] = true
			ns, err := netns.GetFromPath(path)
			if err != nil {
				continue
			}
			if got, err := nl.GetNetNsIdByFd(int(ns)); err == nil && got == id {
				return ns, nil
			}
			ns.Close()
		}
	}
	return netns.None(), errNoNamespace
}

// inside runs f on a thread in the namespace. The thread ends with it, so that no way back can fail. f sees the namespace's
// /proc/sys/net, which follows the thread.
func inside(ns netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(ns)
		if err != nil {
			err = fmt.Errorf("enter the network namespace: %w", err)
		} else {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// behind runs f inside the namespace behind a link, with the identity of that namespace.
func (h *Host) behind(name string, f func(id string) error) error {
	link, err := h.link(name)
	if err != nil {
		return err
	}
	ns, err := namespaceBehind(h.nl, link)
	if err != nil {
		return fmt.Errorf("behind %s: %w", name, err)
	}
	defer ns.Close()
	return inside(ns, func() error {
		id, err := namespaceID()
		if err != nil {
			return err
		}
		return f(id)
	})
}

// isGone says that there is nothing behind a link any more that could be ours.
func isGone(err error) bool {
	return errors.Is(err, ErrNoLink) || errors.Is(err, errNoNamespace) || errors.Is(err, fs.ErrNotExist)
}
