package wireguard

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// Commands of the qdisc plug (struct tc_plug_qopt of linux/pkt_sched.h), in the machine's byte order: action, limit in
// bytes.
const (
	plugBuffer  = 0 // TCQ_PLUG_BUFFER
	plugRelease = 2 // TCQ_PLUG_RELEASE_INDEFINITE
)

// plugBytes is how much may wait.
const plugBytes = 64 << 20

// plugHandle is 1870: of the qdisc; those that the kernel chooses begin at 8000:.
const plugHandle = 0x1870 << 16

// standPlug gives a link that is still down a plug that lets everything pass, for as long as the link lives: what holds the
// traffic of a link that is up must be there already. To exchange the root qdisc of such a link drops what is sent
// meanwhile (dev_deactivate, a grace period). Measured in the VM, a plug that stands costs nothing beyond the noise. A kernel
// without the module has tunnels without it.
func (d *Driver) standPlug(name string) error {
	err := d.plugRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL, plugBuffer, plugBytes) // it begins by holding, whatever the action
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		d.log.Warn("without the module sch_plug, the tunnel's key cannot be changed while it carries traffic", "tunnel", name)
		return nil
	}
	if err == nil {
		err = d.plugRequest(name, 0, plugRelease, 0)
	}
	if err != nil {
		return fmt.Errorf("queue of interface %s: %w", name, err)
	}
	return nil
}

// plug holds what is sent into the link. A link that has no plug yet was made without the module, or by an older version:
// what is sent in the instant in which it gets one may be lost.
func (d *Driver) plug(name string) error {
	there, err := d.plugged(name)
	if err != nil {
		return err
	}
	if there {
		err = d.plugRequest(name, 0, plugBuffer, 0)
	} else if err = d.plugRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL, plugBuffer, plugBytes); err == nil {
		d.log.Warn("the tunnel's interface was made without what holds its traffic: a packet may have been lost", "tunnel", name)
	}
	if errors.Is(err, unix.ENOENT) {
		err = errors.New("this kernel has no qdisc plug: load the module sch_plug")
	}
	if err != nil {
		return fmt.Errorf("hold the traffic of %s: %w", name, err)
	}
	return nil
}

// unplug releases what is held, and does nothing where nothing can be.
func (d *Driver) unplug(name string) error {
	there, err := d.plugged(name)
	if err != nil || !there {
		return err
	}
	if err := d.plugRequest(name, 0, plugRelease, 0); err != nil {
		return fmt.Errorf("release the traffic of %s: %w", name, err)
	}
	return nil
}

// releaseLeft releases, once, what a daemon that died while it changed a key has held. The kernel does not tell whether a
// plug holds, so there is nothing to observe. A failure is for the log: it is tried again at the next look.
func (d *Driver) releaseLeft(links []netlink.Link) {
	if d.looked {
		return
	}
	d.looked = true
	for _, link := range links {
		name := link.Attrs().Name
		if _, changing := d.rotating[name]; changing || backendOf(link) != Kernel {
			continue
		}
		if err := d.unplug(name); err != nil {
			d.looked = false
			d.log.Error("release what a daemon before this one may have held", "tunnel", name, "error", err)
		}
	}
}

func (d *Driver) plugged(name string) (bool, error) {
	link, err := d.links.Find(name)
	if err != nil {
		return false, err
	}
	list, err := netdump.List(func() ([]netlink.Qdisc, error) { return d.nl.QdiscList(link) })
	if err != nil {
		return false, fmt.Errorf("qdiscs of %s: %w", name, err)
	}
	for _, q := range list {
		if q.Type() == "plug" && q.Attrs().Handle == plugHandle {
			return true, nil
		}
	}
	return false, nil
}

// plugRequest makes the root qdisc, or tells it something.
func (d *Driver) plugRequest(name string, flags int, action, limit uint32) error {
	link, err := d.links.Find(name)
	if err != nil {
		return err
	}
	return d.inside(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, flags|unix.NLM_F_ACK)
		req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(link.Attrs().Index), Handle: plugHandle, Parent: netlink.HANDLE_ROOT})
		req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("plug")))
		options := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, action), limit)
		req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, options))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}
