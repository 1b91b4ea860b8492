package host

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// numbers are settings of a NIC in one of the structs of linux/ethtool.h that are 32-bit numbers throughout, the command first.
// It is read, changed in place and written as a whole.
type numbers struct {
	fd       int
	get, set uint32
	at       map[string]int  // where a value stands
	flags    map[string]bool // those that are on or off
}

// Where structs of linux/ethtool.h have what there can be at most.
const (
	maxRX, maxTX, maxCombined = 1, 2, 4 // struct ethtool_channels
	maxRXRing, maxTXRing      = 1, 4    // struct ethtool_ringparam
)

// ethtoolWords has room for the longest, struct ethtool_coalesce with its 23.
type ethtoolWords [32]uint32

func queuesOf(fd int) *numbers { // struct ethtool_channels
	return &numbers{fd: fd, get: unix.ETHTOOL_GCHANNELS, set: unix.ETHTOOL_SCHANNELS,
		at: map[string]int{"rx": 5, "tx": 6, "combined": 8}}
}

func ringsOf(fd int) *numbers { // struct ethtool_ringparam
	return &numbers{fd: fd, get: unix.ETHTOOL_GRINGPARAM, set: unix.ETHTOOL_SRINGPARAM,
		at: map[string]int{"rx": 5, "tx": 8}}
}

func coalescingOf(fd int) *numbers { // struct ethtool_coalesce
	return &numbers{fd: fd, get: unix.ETHTOOL_GCOALESCE, set: unix.ETHTOOL_SCOALESCE,
		at:    map[string]int{"rx-usecs": 1, "tx-usecs": 5, "adaptive-rx": 10, "adaptive-tx": 11},
		flags: map[string]bool{"adaptive-rx": true, "adaptive-tx": true}}
}

func flowControlOf(fd int) *numbers { // struct ethtool_pauseparam
	return &numbers{fd: fd, get: unix.ETHTOOL_GPAUSEPARAM, set: unix.ETHTOOL_SPAUSEPARAM,
		at: map[string]int{"rx": 2, "tx": 3}, flags: map[string]bool{"rx": true, "tx": true}}
}

func (n *numbers) resolve(_ string, want Values) (Values, error) { return want, nil }

func (n *numbers) words(link string) (w ethtoolWords, err error) {
	w[0] = n.get
	return w, ethtool(n.fd, link, unsafe.Pointer(&w))
}

func (n *numbers) read(link string) (Values, error) {
	w, err := n.words(link)
	if err != nil {
		return nil, err
	}
	out := Values{}
	for k, at := range n.at {
		switch {
		case n.flags[k] && w[at] != 0:
			out[k] = "on"
		case n.flags[k]:
			out[k] = "off"
		default:
			out[k] = strconv.Itoa(int(w[at]))
		}
	}
	return out, nil
}

func (n *numbers) write(link string, v Values) error {
	w, err := n.words(link)
	if err != nil {
		return err
	}
	for k, text := range v {
		switch text {
		case "on":
			w[n.at[k]] = 1
		case "off":
			w[n.at[k]] = 0
		default:
			value, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return err
			}
			w[n.at[k]] = uint32(value)
		}
	}
	w[0] = n.set
	if err := ethtool(n.fd, link, unsafe.Pointer(&w)); err != nil {
		return fmt.Errorf("the driver (%s) refuses %s: %w", driver(link), v, err)
	}
	return nil
}

// queueTuner sets combined queues where the NIC has them, else as many of either direction.
type queueTuner struct {
	*numbers
	nl *netlink.Handle
}

// frozen is virtio_net's while a program is attached in native mode: it changes no queues then, and counts those of XDP among its own.
func (q queueTuner) frozen(link string) error {
	if driver(link) != "virtio_net" {
		return nil
	}
	l, err := q.nl.LinkByName(link)
	if err != nil || l.Attrs().Xdp == nil || l.Attrs().Xdp.AttachMode == nl.XDP_ATTACHED_SKB || !l.Attrs().Xdp.Attached {
		return nil // who reads or writes finds out the same
	}
	return errors.New("virtio_net changes its queues only while no XDP program is attached: apply xdp: {mode: none} first, then this with the mode that was")
}

func (q queueTuner) resolve(link string, want Values) (Values, error) {
	w, err := q.words(link)
	if err != nil {
		return nil, err
	}
	if w[maxCombined] > 0 {
		return Values{"combined": want[""]}, nil
	}
	return Values{"rx": want[""], "tx": want[""]}, nil
}

// offloadFeatures are the kernel's names of what a file calls by one.
var offloadFeatures = map[string][]string{
	"lro": {"rx-lro"}, "gro": {"rx-gro"}, "gro_hw": {"rx-gro-hw"}, "gso": {"tx-generic-segmentation"},
	"tso": {"tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp6-segmentation",
		"tx-tcp-accecn-segmentation"}, // the last in new kernels alone
}

type offloadTuner struct{ offloads }

// resolve leaves out what nobody can change and is as it should be.
func (o offloadTuner) resolve(link string, want Values) (Values, error) {
	features, err := o.offloads.read(link)
	if err != nil {
		return nil, err
	}
	out := Values{}
	for name, value := range want {
		for _, f := range offloadFeatures[name] {
			feature, known := features[f]
			if !known {
				continue // the kernel is older
			}
			if !feature.fixed {
				out[f] = value
			} else if value == "on" && f == offloadFeatures[name][0] || value == "off" && feature.on {
				return nil, fmt.Errorf("the driver (%s) cannot switch %s %s (%s is fixed)", driver(link), name, value, f)
			}
		}
	}
	return out, nil
}

func (o offloadTuner) read(link string) (Values, error) {
	features, err := o.offloads.read(link)
	if err != nil {
		return nil, err
	}
	out := Values{}
	for name, f := range features {
		out[name] = map[bool]string{true: "on", false: "off"}[f.on]
	}
	return out, nil
}

func (o offloadTuner) write(link string, v Values) error {
	for _, to := range []string{"off", "on"} {
		var names []string
		for _, name := range sortedKeys(v) {
			if v[name] == to {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		if err := o.switchTo(link, names, to == "on"); err != nil {
			return fmt.Errorf("%s %s: %w", strings.Join(names, ", "), to, err)
		}
	}
	return nil
}

// newTuners are those of the calling thread's network namespace; root is "/" but in tests.
func newTuners(h *netlink.Handle, o offloads, fd int, root string) map[Tunable]tuner {
	m := machineFiles{root}
	return map[Tunable]tuner{
		Queues: queueTuner{queuesOf(fd), h}, Rings: ringsOf(fd), Offloads: offloadTuner{o}, Coalescing: coalescingOf(fd), FlowControl: flowControlOf(fd),
		IRQAffinity: irqTuner{m, func(link string) (string, error) { return busOf(fd, link) }}, CPUGovernor: governorTuner{m},
	}
}
