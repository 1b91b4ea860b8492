// Package child is the userspace WireGuard device as a process of its own (package process): it goes on carrying traffic whatever
// becomes of the daemon that started it, and the next daemon adopts it. Run is that process; Place and Client are what the daemon
// has of it.
//
// The daemon opens the TUN in its own network namespace, and hands it down beside the socket. The process lives as long as the TUN's interface: deleting the interface ends it. Secrets come over the socket alone.
package child

import (
	"context"
	"fmt"
	"net"
	"os"

	"sluice/process"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// Verb is the word of the command line that a binary answers with Run. Behind it come the interface's name and the
// socket's path, which only tell readers of a process list, and a daemon of another state directory, what this is.
const Verb = "tunneld"

// tunFD is the TUN, attached, that the daemon hands down.
const tunFD = process.FirstFile

// Run is the whole life of the process for the interface called name. It ends with ctx or with the interface. program is the
// version of the binary, for who asks: the process goes on as what it was started from, whatever version the daemon is of by then.
func Run(ctx context.Context, name, program string) error {
	// A core dump would hold every key of the tunnel.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	says := process.NewJournal()
	udp := &bind{}
	dev, tun, err := open(name, udp, says)
	if err != nil {
		return err
	}
	defer dev.Close()
	listener, err := process.Listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	go newServer(program, dev, udp, tun, says).Serve(listener)
	select {
	case <-ctx.Done():
	case <-dev.Wait():
	}
	return nil
}

// open runs a device without configuration on the TUN that was handed down.
func open(name string, udp *bind, says *process.Journal) (*device.Device, *prober, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, nil, fmt.Errorf("interface %s: %w", name, err)
	}
	// Handing a file down has made it a blocking one, and a blocked read would outlive the interface.
	if err := unix.SetNonblock(tunFD, true); err != nil {
		return nil, nil, fmt.Errorf("descriptor %d is to be the TUN: %w", tunFD, err)
	}
	raw, err := tun.CreateTUNFromFile(os.NewFile(tunFD, "/dev/net/tun"), iface.MTU)
	if err != nil {
		return nil, nil, fmt.Errorf("attach to TUN %s: %w", name, err)
	}
	p := &prober{gate: newGate(raw), sources: sources{link: iface.Index}, say: says.Say}
	return device.NewDevice(p, udp, logger(says)), p, nil
}
