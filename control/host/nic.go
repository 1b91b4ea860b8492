package host

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"sluice/netdump"
)

// NIC is what the hardware of a link can do, and has.
type NIC struct {
	Driver string
	// Queues are in use, MaxQueues could be: combined ones, or else of the direction that has fewer. 0: the driver does not say.
	Queues, MaxQueues int
	// Rings are descriptors of a queue. 0: the driver does not say.
	RXRing, TXRing, MaxRXRing, MaxTXRing int
	Coalesces                            bool            // its interrupts can be made to wait
	FlowControl                          bool            // PAUSE frames can be switched
	Interrupts                           bool            // of its own
	Offloads                             map[string]bool // by the file's names: whether they are on
	Fixed                                []string        // offloads that nobody can switch, sorted
	XDP                                  bool            // a program is attached
}

// NICsOf looks at the named links of the calling thread's network namespace. Those that are not here are left out. It changes nothing.
func NICsOf(ctx context.Context, names []string) (map[string]NIC, error) {
	if len(names) == 0 {
		return nil, nil
	}
	e, err := openOffloads()
	if err != nil {
		return nil, err
	}
	defer e.close()
	links, err := netdump.List(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := map[string]NIC{}
	for _, l := range links {
		a := l.Attrs()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if slices.Contains(names, a.Name) {
			out[a.Name] = nicOf(e, a)
		}
	}
	return out, nil
}

// nicOf leaves zero what the driver does not say.
func nicOf(e *ethtoolOffloads, a *netlink.LinkAttrs) NIC {
	n := NIC{Driver: driver(a.Name), Offloads: map[string]bool{}, XDP: a.Xdp != nil && a.Xdp.Attached}
	if w, err := queuesOf(e.fd).words(a.Name); err == nil {
		n.Queues, n.MaxQueues = queueNumbers(w)
	}
	if w, err := ringsOf(e.fd).words(a.Name); err == nil {
		n.MaxRXRing, n.MaxTXRing, n.RXRing, n.TXRing = int(w[maxRXRing]), int(w[maxTXRing]), int(w[5]), int(w[8])
	}
	_, err := coalescingOf(e.fd).words(a.Name)
	n.Coalesces = err == nil
	_, err = flowControlOf(e.fd).words(a.Name)
	n.FlowControl = err == nil
	bus, err := busOf(e.fd, a.Name)
	n.Interrupts = err == nil && bus != ""
	features, err := e.read(a.Name)
	if err != nil {
		return n
	}
	for name, list := range offloadFeatures {
		f := features[list[0]]
		if n.Offloads[name] = f.on; f.fixed {
			n.Fixed = append(n.Fixed, name)
		}
	}
	slices.Sort(n.Fixed)
	return n
}

// queueNumbers reads struct ethtool_channels.
func queueNumbers(w ethtoolWords) (inUse, most int) {
	if w[maxCombined] > 0 {
		return int(w[8]), int(w[maxCombined])
	}
	return int(min(w[5], w[6])), int(min(w[maxRX], w[maxTX]))
}

// Processors are what the machine says of its CPUs.
type Processors struct {
	Online    []int
	Governors []string // that cpufreq has; none: nobody but a hypervisor or the firmware decides about the clock
}

// ProcessorsHere reads /sys.
func ProcessorsHere() (*Processors, error) { return processorsBelow("/") }

func processorsBelow(root string) (*Processors, error) {
	m := machineFiles{root}
	online, err := m.online()
	if err != nil {
		return nil, fmt.Errorf("read which CPUs are online: %w", err)
	}
	p := &Processors{Online: online}
	if names, err := m.read(cpuDir, "cpufreq/policy"+fmt.Sprint(online[0]), "scaling_available_governors"); err == nil {
		p.Governors = strings.Fields(names)
		slices.SortFunc(p.Governors, cmp.Compare)
	}
	return p, nil
}
