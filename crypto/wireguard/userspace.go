package wireguard

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
	"sluice/crypto/wireguard/child"
	"sluice/process"
)

const tunPath = "/dev/net/tun"

// userDevice is the embedded implementation behind a persistent TUN, in a process of its own. It is configured by a
// socket of ours: the usual one in /var/run/wireguard is shared by all network namespaces, where equal tunnel names
// would collide.
type userDevice struct {
	d    *Driver
	name string
	*child.Client
}

// createTUN makes a TUN that outlives who runs it: without it the end of that process would remove the link and its
// routes, and what was meant for the tunnel would leave in plaintext by the default route. Persistence is set last, so
// that a crash in between leaves nothing.
func (d *Driver) createTUN(t Tunnel, why string) (netlink.Link, error) {
	file, err := d.openTUN(t.Name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	link, err := d.mark(t, Userspace, why)
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) { ioctlErr = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) })
	if err := errors.Join(err, ioctlErr); err != nil {
		return nil, fmt.Errorf("make TUN %s persistent: %w", t.Name, err)
	}
	return link, nil
}

// openTUN attaches to the TUN called name, and makes it where there is none. One that a process has attached is
// unix.EBUSY.
func (d *Driver) openTUN(name string) (file *os.File, err error) {
	err = d.inside(func() error {
		fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w; the userspace backend needs the tun module", tunPath, err)
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("attach to TUN %s: %w", name, err)
		}
		file = os.NewFile(uintptr(fd), tunPath)
		return nil
	})
	return file, err
}

// startUserspace makes a device run on the link. The link must be up before the device looks at it: the library polls
// the link's state each second, and having seen it down it would close its sockets after we have opened them.
func (d *Driver) startUserspace(link netlink.Link, t Tunnel, key keys.Key) error {
	if err := d.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set interface %s up: %w", t.Name, err)
	}
	c, err := d.child(t.Name)
	if errors.Is(err, process.ErrNone) {
		c, err = d.startChild(t.Name)
	}
	if err != nil {
		return err
	}
	dev := &userDevice{d, t.Name, c}
	if err := d.writeDevice(dev, t, key); err != nil {
		return err
	}
	return portError(t.ListenPort, dev.Up())
}

// startChild makes a process for the tunnel, or adopts one that another state directory knows.
func (d *Driver) startChild(name string) (*child.Client, error) {
	file, err := d.openTUN(name)
	if errors.Is(err, unix.EBUSY) {
		if c, err := d.adoptHolder(name); !errors.Is(err, errEvicted) {
			return c, err
		}
		file, err = d.openTUN(name)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var c *child.Client
	err = d.inside(func() (err error) {
		c, err = d.place.Start(name, file, d.childSays(name))
		return err
	})
	if err != nil {
		return nil, err
	}
	d.log.Info("process of tunnel started", "tunnel", name, "pid", c.PID())
	d.keep(name, c)
	return c, nil
}

// errEvicted says that who held the TUN is gone.
var errEvicted = errors.New("evicted")

func (d *Driver) adoptHolder(name string) (*child.Client, error) {
	h, found := d.place.FindHolder(name)
	if !found {
		return nil, fmt.Errorf("interface %s is run by another process, which cannot be found: is it in another container?", name)
	}
	c, err := d.place.AdoptFrom(h, name, d.childSays(name))
	if errors.Is(err, process.ErrNone) {
		switch deaf, evictErr := d.place.EvictDeaf(h.PID, name); {
		case evictErr != nil:
			err = errors.Join(err, evictErr)
		case deaf:
			d.log.Warn("process of tunnel is replaced: the file of its socket was removed", "tunnel", name, "pid", h.PID)
			return nil, errEvicted
		}
	}
	if err != nil {
		return nil, fmt.Errorf("interface %s is run by another process, %s: %w; end it, or rename the tunnel", name, h, err)
	}
	d.log.Info("process of tunnel adopted from another state directory", "tunnel", name, "pid", c.PID())
	d.keep(name, c)
	return c, nil
}

func (u *userDevice) state() (*wgtypes.Device, error) {
	text, err := u.Get()
	if err != nil {
		return nil, err
	}
	dev, err := parseUAPI(u.name, text)
	if err == nil {
		dev.PublicKey = u.d.publicOf(u.name, dev.PrivateKey)
	}
	return dev, err
}

// identity is a public key, and the digest of the private one that it belongs to.
type identity struct {
	private [sha256.Size]byte
	public  wgtypes.Key
}

// publicOf is the public key of a private one, which takes longer than reading a small device: that of a tunnel's last one is remembered.
func (d *Driver) publicOf(tunnel string, private wgtypes.Key) wgtypes.Key {
	if private == (wgtypes.Key{}) {
		return private
	}
	digest := sha256.Sum256(private[:])
	if known, ok := d.identities.Load(tunnel); ok && known.(identity).private == digest {
		return known.(identity).public
	}
	public := private.PublicKey()
	d.identities.Store(tunnel, identity{digest, public})
	return public
}

func (u *userDevice) configure(cfg wgtypes.Config) error {
	// The library closes the old sockets before it opens the new: look first, and a port in use costs nothing.
	if cfg.ListenPort != nil {
		if err := u.d.inside(func() error { return portFree(*cfg.ListenPort) }); err != nil {
			return err
		}
	}
	return u.Set(formatUAPI(cfg))
}

func (u *userDevice) greet(list ...wgtypes.Key) error { return u.Greet(hexKeys(list)...) }
func (u *userDevice) look() error                     { return u.Greet() }
func (u *userDevice) poke(list ...wgtypes.Key) error  { return u.Poke(hexKeys(list)...) }

func (u *userDevice) local() (netip.Addr, error)  { return u.Local() }
func (u *userDevice) setLocal(a netip.Addr) error { return u.SetLocal(a) }

func (u *userDevice) hold() error    { return u.Hold(2 * rotateTime) }
func (u *userDevice) release() error { return u.Release() }

func hexKeys(list []wgtypes.Key) []string {
	out := make([]string, len(list))
	for i, k := range list {
		out[i] = hexKey(k)
	}
	return out
}

func portFree(port int) error {
	for _, network := range []string{"udp4", "udp6"} {
		c, err := net.ListenPacket(network, ":"+strconv.Itoa(port))
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			return err
		}
		c.Close()
	}
	return nil
}
