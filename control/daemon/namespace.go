package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// namespaceName is an abstract unix socket: such a name belongs to one network namespace, and goes with the process that has it.
const namespaceName = "@sluice-daemon"

// lockNamespace makes this process the one daemon of its network namespace: a second one, whatever its directories, would take links,
// routes and rules of the first for leftovers of its own and remove them. A daemon of a version before this has no such lock.
func lockNamespace(log *slog.Logger) (unlock func(), err error) {
	const tries = 3 // who has the name may end meanwhile
	for range tries {
		l, err := net.Listen("unix", namespaceName)
		if err == nil {
			go answerNobody(l)
			return func() { _ = l.Close() }, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("lock of the network namespace: %w", err)
		}
		holder, err := namespaceHolder()
		switch {
		case errors.Is(err, unix.ECONNREFUSED):
			continue
		case err != nil:
			return nil, fmt.Errorf("another process has the lock of this network namespace, the unix socket %s: %w", namespaceName, err)
		case holder.Uid != 0: // anybody may take the name, and must not keep the gateway from starting by that
			log.Warn("a process that is not root's has the name by which daemons of one network namespace find each other: no second one would be refused",
				"pid", holder.Pid, "uid", holder.Uid, "socket", namespaceName)
			return func() {}, nil
		case holder.Pid == 0:
			return nil, errors.New("another sluice runs in this network namespace, in a container whose processes cannot be seen from here: stop it, or start this one in a network namespace of its own")
		default:
			return nil, fmt.Errorf("another sluice (pid %d) runs in this network namespace, and each would remove what the other has set: stop it, or start this one in a network namespace of its own; directories of its own are not enough", holder.Pid)
		}
	}
	return nil, fmt.Errorf("the lock of this network namespace, the unix socket %s, changes hands: try again", namespaceName)
}

// answerNobody keeps the queue of connections short: in a full one nobody could ask who listens.
func answerNobody(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_ = c.Close()
		} else {
			time.Sleep(time.Second) // no descriptors are left, say
		}
	}
}

// namespaceHolder asks the kernel who listens.
func namespaceHolder() (holder *unix.Ucred, err error) {
	c, err := net.DialTimeout("unix", namespaceName, time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	ctlErr := raw.Control(func(fd uintptr) { holder, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return holder, errors.Join(ctlErr, err)
}
