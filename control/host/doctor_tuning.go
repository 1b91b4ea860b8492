package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice/plural"
)

// examined is what the doctor reads of the hardware below one link.
type examined struct {
	NIC
	link  string
	mtu   int
	cpus  int      // online
	irqs  []string // of queues: the CPUs that each may go to, without doubles
	count int      // of these interrupts
	pause Values   // flow control
	xdp   xdpFeatures
}

// xdpFeatures are of a driver (enum netdev_xdp_act, linux/netdev.h).
type xdpFeatures uint64

const (
	xdpBasic     xdpFeatures = 1 << 0
	xdpFragments xdpFeatures = 1 << 5 // NETDEV_XDP_ACT_RX_SG: packets of several buffers
)

// oneBuffer is how long a packet may be in one page, with XDP's headroom, skb_shared_info, and an Ethernet header with a VLAN tag.
const oneBuffer = 4096 - 256 - 320 - 18

// examine reads the hardware of a link; ok is false where there is none.
func examine(e *ethtoolOffloads, m machineFiles, a *netlink.LinkAttrs) (x examined, ok bool) {
	x = examined{NIC: nicOf(e, a), link: a.Name, mtu: a.MTU}
	if !x.Interrupts {
		return x, false
	}
	if online, err := m.online(); err == nil {
		x.cpus = len(online)
	}
	placed, _ := irqTuner{m, func(link string) (string, error) { return busOf(e.fd, link) }}.read(a.Name) // of what cannot be read nothing is said
	for _, irq := range sortedKeys(placed) {
		x.count++
		x.irqs = append(x.irqs, placed[irq])
	}
	slices.Sort(x.irqs)
	x.irqs = slices.Compact(x.irqs)
	x.pause, _ = flowControlOf(e.fd).read(a.Name)
	x.xdp, _ = xdpFeaturesOf(a.Index)
	return x, true
}

// xdpFeaturesOf asks the kernel's family netdev, of Linux 6.3.
func xdpFeaturesOf(index int) (xdpFeatures, error) {
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return 0, err
	}
	const getDevice, byIndex, features = 1, 1, 3 // NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, NETDEV_A_DEV_XDP_FEATURES
	request := nl.NewNetlinkRequest(int(family.ID), 0)
	// struct genlmsghdr by hand: the library's fills its reserved field with whatever lies behind, which this family refuses.
	request.AddRawData(append([]byte{getDevice, 1, 0, 0}, nl.NewRtAttr(byIndex, nl.Uint32Attr(uint32(index))).Serialize()...))
	messages, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		attributes, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range attributes {
			if a.Attr.Type == features && len(a.Value) == 8 {
				return xdpFeatures(nl.NativeEndian().Uint64(a.Value)), nil
			}
		}
	}
	return 0, errors.New("the kernel does not say")
}

// judgeNIC says what is left to set of a NIC; nothing of what its driver does not tell.
func judgeNIC(x examined) (out []Finding) {
	warn := func(what, detail, cost, fix string) {
		out = append(out, Finding{what + "/" + x.link, StatusWarn, detail, cost, fix})
	}
	if can := min(x.cpus, x.MaxQueues); x.Queues > 0 && x.Queues < can {
		warn("nic-queues", fmt.Sprintf("%s in use, of %d; the machine has %s", plural.Of(x.Queues, "queue", "queues"), x.MaxQueues, plural.Of(x.cpus, "CPU", "CPUs")),
			"some CPUs serve no packets", fmt.Sprintf("nic: {queues: %d} in the file", can))
	}
	low := x.RXRing > 0 && x.RXRing*4 <= x.MaxRXRing || x.TXRing > 0 && x.TXRing*4 <= x.MaxTXRing
	if low {
		warn("nic-rings", fmt.Sprintf("rx %d of %d descriptors, tx %d of %d", x.RXRing, x.MaxRXRing, x.TXRing, x.MaxTXRing),
			"bursts that a CPU does not keep up with for some microseconds are lost (rx_missed, rx_no_buffer)",
			fmt.Sprintf("nic: {rings: {rx: %d, tx: %d}} in the file; larger ones are kinder to bursts and harder on the cache", min(x.MaxRXRing, 2048), min(x.MaxTXRing, 2048)))
	}
	if x.cpus > 1 && x.count > 1 && len(x.irqs) == 1 && !strings.ContainsAny(x.irqs[0], ",-") {
		warn("nic-irqs", fmt.Sprintf("all %d interrupts of its queues are at CPU %s", x.count, x.irqs[0]),
			"one CPU serves all packets", "nic: {irq_affinity: auto} in the file")
	}
	out = append(out, judgeReceiving(x)...)
	if x.pause["tx"] == "on" {
		warn("nic-flow-control", "it sends PAUSE frames when its rings are full", "a flood on this box stops the switch's port, for all who send by it: packets are held there instead of dropped here",
			"nic: {flow_control: false} in the file")
	}
	if len(out) == 0 {
		out = append(out, ok("nic/"+x.link, fmt.Sprintf("%s: nothing is left to set that its driver tells of", x.Driver)))
	}
	return out
}

// judgeReceiving is about what native XDP does not go with.
func judgeReceiving(x examined) (out []Finding) {
	var on []string
	for _, name := range []string{"lro", "gro_hw"} {
		if x.Offloads[name] && x.Driver != "virtio_net" { // which sees to it itself
			on = append(on, name)
		}
	}
	const generic = "drivers refuse native XDP: xdp.mode auto would run in generic mode, several times slower"
	fixed := slices.ContainsFunc(on, func(name string) bool { return slices.Contains(x.Fixed, name) })
	switch {
	case fixed:
		out = append(out, Finding{"nic-offloads/" + x.link, StatusWarn, strings.Join(on, " and ") + " on, and fixed by the driver", generic, "see the driver's private flags (ethtool --show-priv-flags)"})
	case len(on) > 0:
		out = append(out, Finding{"nic-offloads/" + x.link, StatusWarn, strings.Join(on, " and ") + " on", generic, "nothing, for an uplink: sluice apply switches them off where xdp.mode is auto or native"})
	}
	if x.xdp&xdpBasic != 0 && x.xdp&xdpFragments == 0 && x.mtu > oneBuffer {
		out = append(out, Finding{"nic-mtu/" + x.link, StatusWarn, fmt.Sprintf("MTU %d, and its driver has XDP for packets of one buffer alone (%d bytes)", x.mtu, oneBuffer), generic,
			fmt.Sprintf("mtu: %d or less", oneBuffer)})
	}
	return out
}

// checkProcessors is about the clocks of CPUs, and about who else moves interrupts. placed says that the file has irq_affinity.
func checkProcessors(m machineFiles, placed bool) (out []Finding) {
	governors, err := governorTuner{m}.read("")
	var slow []string
	for _, p := range sortedKeys(governors) {
		if governors[p] != "performance" {
			slow = append(slow, governors[p])
		}
	}
	slices.Sort(slow)
	switch slow = slices.Compact(slow); {
	case err != nil:
		out = append(out, Finding{"cpu-governor", StatusWarn, "cannot tell: " + err.Error(), "unknown", "run as root"})
	case len(governors) == 0:
		out = append(out, ok("cpu-governor", "no frequency scaling here: a hypervisor or the firmware decides about the clock"))
	case len(slow) > 0:
		out = append(out, Finding{"cpu-governor", StatusWarn, strings.Join(slow, ", "), "CPUs slow down between packets: the first ones of a burst wait, and at high rates some are lost",
			"node: {cpu_governor: performance} in the file"})
	default:
		out = append(out, ok("cpu-governor", "performance"))
	}
	if placed && m.runs("irqbalance") {
		out = append(out, Finding{"irqbalance", StatusWarn, "it runs, and the file has irq_affinity", "it moves the interrupts that Sluice places, and Sluice puts them back at its inspections",
			"systemctl disable --now irqbalance, or have it leave the NICs alone (--banirq)"})
	}
	return out
}

// runs says whether there is a process of a name.
func (m machineFiles) runs(name string) bool {
	names, _ := filepath.Glob(m.path("proc/[0-9]*/comm"))
	return slices.ContainsFunc(names, func(path string) bool {
		comm, err := os.ReadFile(path)
		return err == nil && strings.TrimSpace(string(comm)) == name
	})
}
