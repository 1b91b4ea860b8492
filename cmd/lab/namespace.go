package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// namespaceDir is where `ip netns` keeps names of namespaces, as bind mounts.
const namespaceDir = "/run/netns"

// Namespace is one host of the site: a named network namespace.
type Namespace struct {
	Name string // as `ip netns` lists it
	site *Site
	role string // gateway, tor, web-1, …: the name without the lab's prefix
	fd   netns.NsHandle
	nl   *netlink.Handle
}

// makeNamespace makes a namespace, with its loopback up.
func makeNamespace(name string) (*Namespace, error) {
	ns := &Namespace{Name: name, fd: netns.None()}
	home, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	runtime.LockOSThread()
	ns.fd, err = netns.NewNamed(name) // and the thread is in it
	comeBack(home)
	if err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	if ns.nl, err = netlink.NewHandleAt(ns.fd, unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink in %s: %w", name, err), ns.fd.Close(), removeNamespace(name))
	}
	return ns, ns.up("lo")
}

// comeBack returns the locked thread to its namespace and unlocks it. A thread that stays elsewhere would run other
// goroutines there: nothing sane can follow.
func comeBack(home netns.NsHandle) {
	if err := netns.Set(home); err != nil {
		panic(fmt.Sprintf("lab: the thread cannot come back to its network namespace: %v", err))
	}
	runtime.UnlockOSThread()
}

// Do runs f on a thread that is in the namespace. Sockets that f opens stay there; goroutines that f starts do not run
// there; a process that f starts does.
func (n *Namespace) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	defer comeBack(home)
	if err := netns.Set(n.fd); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
	}
	return f()
}

// Dial opens a connection from the namespace to a literal address.
func (n *Namespace) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Sysctl writes a setting of the namespace; key has slashes, as below /proc/sys.
func (n *Namespace) Sysctl(key, value string) error {
	return n.Do(func() error {
		// The kernel shows each thread the settings of its own namespace.
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
	})
}

// Netlink is a handle whose socket is in the namespace, whatever thread uses it. It ends with the site.
func (n *Namespace) Netlink() *netlink.Handle { return n.nl }

func (n *Namespace) up(link string) error {
	l, err := n.nl.LinkByName(link)
	if err == nil {
		err = n.nl.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set %s up in %s: %w", link, n.Name, err)
	}
	return nil
}

// address adds addresses, usable at once: nobody else is on these links, so that no duplicate is looked for.
func (n *Namespace) address(link string, addresses ...string) error {
	l, err := n.nl.LinkByName(link)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", link, n.Name, err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := n.nl.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("address %s on %s in %s: %w", a, link, n.Name, err)
		}
	}
	return nil
}

// defaultRoute sends everything by a gateway on the link, whether or not an address of the link covers it.
func (n *Namespace) defaultRoute(link string, gateways ...string) error {
	l, err := n.nl.LinkByName(link)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", link, n.Name, err)
	}
	for _, gateway := range gateways {
		route := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway), Flags: int(netlink.FLAG_ONLINK)}
		if err := n.nl.RouteAdd(route); err != nil {
			return fmt.Errorf("default route by %s in %s: %w", gateway, n.Name, err)
		}
	}
	return nil
}

// veth joins two namespaces: the end in n has the name own, the end in peer the name other. Both are set up.
func (n *Namespace) veth(own string, peer *Namespace, other string) error {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: own, HardwareAddr: mac(n.role, own)},
		PeerName: other, PeerHardwareAddr: mac(peer.role, other), PeerNamespace: netlink.NsFd(peer.fd)}
	if err := n.nl.LinkAdd(link); err != nil {
		return fmt.Errorf("veth %s in %s: %w", own, n.Name, err)
	}
	return errors.Join(n.up(own), peer.up(other))
}

// mac is the same in every lab, and with it the link-local address: addresses of the box are constants of its programs.
func mac(role, link string) net.HardwareAddr {
	h := fnv.New32a()
	h.Write([]byte(role + " " + link))
	return h.Sum([]byte{2, 0}) // locally administered
}

// close lets go of the namespace; it lives on while it has a name or a process.
func (n *Namespace) close() error {
	n.nl.Close()
	return n.fd.Close()
}

// endTunnels deletes the namespace's TUNs, whose processes, which outlive their daemons, end with them.
func endTunnels(name string) error {
	ns, err := netns.GetFromName(name)
	if err != nil {
		return nil // its maker died between making the file and mounting
	}
	defer ns.Close()
	nl, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil // the same: what is mounted is no namespace
	}
	defer nl.Close()
	links, err := netdump.List(nl.LinkList)
	for _, l := range links {
		if l.Type() == "tuntap" {
			err = errors.Join(err, nl.LinkDel(l))
		}
	}
	return err
}

// removeNamespace takes the name away, and with it the namespace once no process is in it.
func removeNamespace(name string) error {
	if err := endTunnels(name); err != nil {
		return fmt.Errorf("tunnels of namespace %s: %w", name, err)
	}
	path := filepath.Join(namespaceDir, name)
	// Not a mount: its maker died between making the file and mounting.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount namespace %s: %w", name, err)
	}
	return os.Remove(path)
}

// namespacesOf lists the names that begin with prefix.
func namespacesOf(prefix string) ([]string, error) {
	entries, err := os.ReadDir(namespaceDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}
