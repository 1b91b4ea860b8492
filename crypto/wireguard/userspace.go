package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	wg "golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
)

const tunPath = "/dev/net/tun"

// userDevice is the embedded implementation behind a persistent TUN. It is configured in-process: the usual UAPI
// socket in /var/run/wireguard is shared by all network namespaces, where equal tunnel names would collide.
type userDevice struct {
	name string
	dev  *wg.Device
}

// createTUN makes a TUN that outlives this process: without it kill -9 would remove the link and its routes, and what
// was meant for the tunnel would leave in plaintext by the default route. Persistence is set last, so that a crash in
// between leaves nothing.
func (d *Driver) createTUN(t Tunnel, why string) (netlink.Link, error) {
	file, err := openTUN(t.Name)
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

// openTUN attaches to the TUN called name, and makes it where there is none.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w; the userspace backend needs the tun module", tunPath, err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("interface %s is run by another process: is a second daemon alive?", name)
		}
		return nil, fmt.Errorf("attach to TUN %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), tunPath), nil
}

// startUserspace runs a device on the link. The link must be up before the device looks at it: the library polls the
// link's state each second, and having seen it down it would close its sockets after we have opened them.
func (d *Driver) startUserspace(link netlink.Link, t Tunnel, key keys.Key) error {
	if err := d.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set interface %s up: %w", t.Name, err)
	}
	if dev := d.running[t.Name]; dev != nil && dev.alive() {
		return errors.Join(d.writeDevice(dev, t, key), portError(t.ListenPort, dev.dev.Up()))
	}
	d.drop(t.Name)
	file, err := openTUN(t.Name)
	if err != nil {
		return err
	}
	tunDev, err := tun.CreateTUNFromFile(file, mtuNow(link, t))
	if err != nil {
		file.Close()
		return fmt.Errorf("attach to TUN %s: %w", t.Name, err)
	}
	dev := &userDevice{name: t.Name, dev: wg.NewDevice(tunDev, conn.NewDefaultBind(), wgLogger(d.log, t.Name))}
	err = d.writeDevice(dev, t, key)
	if err == nil {
		err = portError(t.ListenPort, dev.dev.Up())
	}
	if err != nil {
		dev.close()
		return err
	}
	d.running[t.Name] = dev
	return nil
}

func mtuNow(link netlink.Link, t Tunnel) int {
	if t.MTU != 0 {
		return t.MTU
	}
	return link.Attrs().MTU
}

// wgLogger passes errors on. The verbose stream is dropped: it says one line per packet at times.
func wgLogger(log *slog.Logger, name string) *wg.Logger {
	return &wg.Logger{
		Verbosef: wg.DiscardLogf,
		Errorf: func(format string, args ...any) {
			log.LogAttrs(context.Background(), slog.LevelWarn, "wireguard: "+fmt.Sprintf(format, args...), slog.String("tunnel", name))
		},
	}
}

// alive is false once the device has closed itself, as it does when its TUN is deleted.
func (u *userDevice) alive() bool {
	select {
	case <-u.dev.Wait():
		return false
	default:
		return true
	}
}

func (u *userDevice) close() { u.dev.Close() }

func (u *userDevice) state() (*wgtypes.Device, error) {
	text, err := u.dev.IpcGet()
	if err != nil {
		return nil, fmt.Errorf("read WireGuard device %s: %w", u.name, err)
	}
	return parseUAPI(u.name, text)
}

func (u *userDevice) configure(cfg wgtypes.Config) error {
	// The library closes the old sockets before it opens the new: look first, and a port in use costs nothing.
	if cfg.ListenPort != nil {
		if err := portFree(*cfg.ListenPort); err != nil {
			return err
		}
	}
	if err := u.dev.IpcSet(formatUAPI(cfg)); err != nil {
		return fmt.Errorf("configure WireGuard device %s: %w", u.name, err)
	}
	return nil
}

func (u *userDevice) greet(key wgtypes.Key) {
	if peer := u.dev.LookupPeer(wg.NoisePublicKey(key)); peer != nil {
		if err := peer.SendHandshakeInitiation(false); err != nil {
			// Not ours to solve: the device tries again as soon as there is traffic.
			return
		}
	}
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
