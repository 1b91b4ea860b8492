package compile

import (
	"fmt"
	"strings"
	"testing"

	"sluice/control/host"
)

const tunedFile = `
node: {cpu_governor: performance}
interfaces:
  - name: eth0
    role: uplink
    nic: {queues: 8, rings: {rx: 4096, tx: max}, offloads: {gro: false, tso: true}, coalesce: {adaptive_rx: false, rx: 20us}, flow_control: false, irq_affinity: [0-2, 5]}
  - {name: bond0, members: [eth2, eth3], lacp: fast, role: downstream, nic: {queues: max, irq_affinity: auto}}
  - {name: eth4, role: downstream}
  - {name: eth5, role: uplink}
`

// capable is a NIC of a kind that is sold for 100G.
func capable() host.NIC {
	return host.NIC{Driver: "mlx5_core", Queues: 4, MaxQueues: 16, RXRing: 1024, TXRing: 1024, MaxRXRing: 8192, MaxTXRing: 8192, Coalesces: true,
		FlowControl: true, Interrupts: true, Offloads: map[string]bool{"lro": true, "gro": true, "gso": true, "tso": true}, Fixed: []string{"gro_hw"}}
}

func tunedFacts(change func(*host.Facts)) Facts {
	f := facts("eth0", "eth2", "eth3", "eth4", "eth5")
	f.Host.NICs = map[string]host.NIC{"eth0": capable(), "eth2": capable(), "eth3": capable(), "eth5": capable()}
	f.Host.Processors = &host.Processors{Online: []int{0, 1, 2, 3, 4, 5, 6, 7}, Governors: []string{"performance", "powersave"}}
	if change != nil {
		change(&f.Host)
	}
	return f
}

func tuned(d *Desired) (out []string) {
	for _, t := range d.Host.Tunings {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s: %s", t.Link, t.What, t.Values)))
	}
	return out
}

func TestNICsAreTunedAsTheFileSays(t *testing.T) {
	cfg := parse(t, tunedFile)
	if got := strings.Join(LooksAtNICs(cfg), " "); got != "eth0 eth2 eth3 eth5" || !LooksAtProcessors(cfg) {
		t.Errorf("it looks at %s, and at processors: %v", got, LooksAtProcessors(cfg))
	}
	same(t, tuned(compile(t, cfg, Runtime{}, tunedFacts(nil))),
		"cpu-governor: performance",
		"eth0 coalesce: adaptive-rx off rx-usecs 20", "eth0 flow-control: rx off tx off", "eth0 irq-affinity: 0-2,5",
		"eth0 offloads: gro off lro off tso on", "eth0 queues: 8", "eth0 rings: rx 4096 tx 8192",
		"eth2 irq-affinity: auto", "eth2 queues: 16", "eth3 irq-affinity: auto", "eth3 queues: 16",
		"eth5 offloads: lro off") // nothing is written there: native XDP needs it
}

// TestWhereNobodyLookedWishesAreTakenAsTheyAre: nothing is known of a machine that the file is only checked for.
func TestWhereNobodyLookedWishesAreTakenAsTheyAre(t *testing.T) {
	f := tunedFacts(func(h *host.Facts) { h.NICs, h.Processors = nil, nil })
	same(t, tuned(compile(t, parse(t, tunedFile), Runtime{}, f)),
		"cpu-governor: performance",
		"eth0 coalesce: adaptive-rx off rx-usecs 20", "eth0 flow-control: rx off tx off", "eth0 irq-affinity: 0-2,5",
		"eth0 offloads: gro off tso on", "eth0 queues: 8", "eth0 rings: rx 4096", "eth2 irq-affinity: auto", "eth3 irq-affinity: auto")
}

func TestOffloadsThatXDPNeedsOff(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*host.NIC)
		xdp    string
		want   string
	}{
		"both can be switched":                {func(n *host.NIC) { n.Fixed = nil }, "auto", "gro_hw off lro off"},
		"neither can, as of a veth":           {func(n *host.NIC) { n.Fixed = []string{"gro_hw", "lro"} }, "native", ""},
		"virtio_net switches its own":         {func(n *host.NIC) { n.Driver = "virtio_net" }, "auto", ""},
		"the kernel switches them in generic": {nil, "generic", ""},
		"no XDP":                              {nil, "none", ""},
	} {
		nic := capable()
		if c.change != nil {
			c.change(&nic)
		}
		f := facts("eth0")
		f.Host.NICs = map[string]host.NIC{"eth0": nic}
		got := strings.Join(tuned(compile(t, parse(t, "interfaces: [{name: eth0, role: uplink, xdp: {mode: "+c.xdp+"}}]\n"), Runtime{}, f)), "; ")
		if strings.TrimPrefix(got, "eth0 offloads: ") != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestWhatHardwareCannotDoIsAnErrorAndNoOutage(t *testing.T) {
	const at = "edge.yaml:6:"
	for name, c := range map[string]struct {
		change func(*host.Facts, *host.NIC)
		want   string
		gone   string // what is left out where the file was accepted
	}{
		"queues":           {func(_ *host.Facts, n *host.NIC) { n.MaxQueues = 4 }, at + "19: interfaces[0].nic.queues: eth0 has 4 queues at most, asked 8; write 4 or less, or max", "eth0 queues"},
		"no queues":        {func(_ *host.Facts, n *host.NIC) { n.MaxQueues = 0 }, at + "19: interfaces[0].nic.queues: eth0 (mlx5_core) cannot change its queues; remove it", "eth0 queues"},
		"rings":            {func(_ *host.Facts, n *host.NIC) { n.MaxRXRing = 1024 }, at + "34: interfaces[0].nic.rings.rx: eth0 has 1024 receive descriptors at most, asked 4096; write 1024 or less, or max", "rx 4096"},
		"a fixed offload":  {func(_ *host.Facts, n *host.NIC) { n.Fixed = []string{"gro"} }, at + "66: interfaces[0].nic.offloads.gro: eth0 (mlx5_core) cannot switch gro off; remove it", "gro off"},
		"no flow control":  {func(_ *host.Facts, n *host.NIC) { n.FlowControl = false }, at + "141: interfaces[0].nic.flow_control: eth0 (mlx5_core) has no flow control to switch; remove it", "flow-control"},
		"no interrupts":    {func(_ *host.Facts, n *host.NIC) { n.Interrupts = false }, at + "162: interfaces[0].nic.irq_affinity: eth0 (mlx5_core) has no interrupts of its own; remove it", "0-2,5"},
		"a CPU is offline": {func(f *host.Facts, _ *host.NIC) { f.Processors.Online = []int{0, 1, 2} }, at + "162: interfaces[0].nic.irq_affinity: eth0 cannot have its interrupts at CPU 5, which is not there or offline; write auto, or CPUs that are online: see lscpu", "0-2,5"},
		"no governor":      {func(f *host.Facts, _ *host.NIC) { f.Processors.Governors = nil }, "edge.yaml:2:22: node.cpu_governor: this machine has no CPU frequency scaling: a hypervisor or the firmware decides about the clock; remove it here, or see the firmware's power settings", "cpu-governor"},
		"another governor": {func(f *host.Facts, _ *host.NIC) { f.Processors.Governors = []string{"powersave"} }, "edge.yaml:2:22: node.cpu_governor: the kernel has no governor performance here; it has powersave", "cpu-governor"},
	} {
		t.Run(name, func(t *testing.T) {
			f := tunedFacts(func(h *host.Facts) {
				nic := h.NICs["eth0"]
				c.change(h, &nic)
				h.NICs["eth0"] = nic
			})
			cfg := parse(t, tunedFile)
			same(t, strings.Split(refusal(t, cfg, f).Error(), "\n"), c.want)
			faults := NICFaults(cfg, f.Host)
			if len(faults) != 1 || faults[0].Error() != c.want {
				t.Errorf("the faults are %v", faults)
			}
			d := compile(t, cfg, Runtime{Accepted: true}, f)
			_, told, _ := strings.Cut(strings.TrimSuffix(c.want, "; "+faults[0].Hint), ": ")
			if !strings.Contains(strings.Join(d.Warnings, "\n"), told) {
				t.Errorf("of a file that was accepted the warnings are %q, want %q", d.Warnings, told)
			}
			if all := strings.Join(tuned(d), "\n"); strings.Contains(all, c.gone) || !strings.Contains(all, "eth3") {
				t.Errorf("it is tuned as\n%s", all)
			}
		})
	}
}
