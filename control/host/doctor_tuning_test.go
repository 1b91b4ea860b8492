package host

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestDoctorSaysWhatIsLeftToSetOfANIC(t *testing.T) {
	fine := func() examined {
		return examined{NIC: NIC{Driver: "mlx5_core", Queues: 8, MaxQueues: 16, RXRing: 4096, TXRing: 4096, MaxRXRing: 8192, MaxTXRing: 8192, Offloads: map[string]bool{}},
			link: "eth0", mtu: 9000, cpus: 8, irqs: []string{"0", "1"}, count: 8, pause: Values{"rx": "off", "tx": "off"}, xdp: xdpBasic | xdpFragments}
	}
	for name, c := range map[string]struct {
		change            func(*examined)
		what, detail, fix string
	}{
		"nothing":           {func(*examined) {}, "nic/eth0", "nothing is left", ""},
		"few queues":        {func(x *examined) { x.Queues = 4 }, "nic-queues/eth0", "4 queues in use, of 16; the machine has 8 CPUs", "queues: 8"},
		"as many as it has": {func(x *examined) { x.Queues, x.MaxQueues = 2, 2 }, "nic/eth0", "nothing is left", ""},
		"small rings":       {func(x *examined) { x.RXRing = 512 }, "nic-rings/eth0", "rx 512 of 8192 descriptors, tx 4096 of 8192", "rings: {rx: 2048, tx: 2048}"},
		"no rings told of":  {func(x *examined) { x.RXRing, x.TXRing = 0, 0 }, "nic/eth0", "nothing is left", ""},
		"one CPU":           {func(x *examined) { x.irqs = []string{"3"} }, "nic-irqs/eth0", "all 8 interrupts of its queues are at CPU 3", "irq_affinity: auto"},
		"any CPU":           {func(x *examined) { x.irqs = []string{"0-7"} }, "nic/eth0", "nothing is left", ""},
		"one queue":         {func(x *examined) { x.irqs, x.count = []string{"3"}, 1 }, "nic/eth0", "nothing is left", ""},
		"LRO":               {func(x *examined) { x.Offloads["lro"] = true }, "nic-offloads/eth0", "lro on", "sluice apply switches them off"},
		"LRO for ever":      {func(x *examined) { x.Offloads["lro"], x.Fixed = true, []string{"lro"} }, "nic-offloads/eth0", "lro on, and fixed by the driver", "private flags"},
		"virtio sees to it": {func(x *examined) { x.Offloads["gro_hw"], x.Driver = true, "virtio_net" }, "nic/eth0", "nothing is left", ""},
		"PAUSE":             {func(x *examined) { x.pause["tx"] = "on" }, "nic-flow-control/eth0", "PAUSE", "flow_control: false"},
		"a large MTU":       {func(x *examined) { x.xdp = xdpBasic }, "nic-mtu/eth0", "MTU 9000", "mtu: 3502 or less"},
		"no native XDP":     {func(x *examined) { x.xdp = 0 }, "nic/eth0", "nothing is left", ""},
	} {
		x := fine()
		c.change(&x)
		got := judgeNIC(x)
		status := StatusWarn
		if c.fix == "" {
			status = StatusOK
		}
		if len(got) != 1 || got[0].Name != c.what || got[0].Status != status || !strings.Contains(got[0].Detail, c.detail) || !strings.Contains(got[0].Fix, c.fix) {
			t.Errorf("%s: %+v, want %s %q, %q", name, got, c.what, c.detail, c.fix)
		}
	}
}

func TestDoctorOnClocksAndWhoMovesInterrupts(t *testing.T) {
	m := machineFiles{lend(t, map[string]string{
		cpuDir + "/cpufreq/policy0/scaling_governor": "powersave", cpuDir + "/cpufreq/policy1/scaling_governor": "performance",
		"proc/77/comm": "irqbalance", "proc/78/comm": "sluice",
	})}
	got := checkProcessors(m, true)
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	is(t, got[0], StatusWarn, "powersave")
	is(t, got[1], StatusWarn, "irq_affinity")
	if got := checkProcessors(m, false); len(got) != 1 {
		t.Errorf("without irq_affinity: %+v", got)
	}
	is(t, checkProcessors(machineFiles{t.TempDir()}, true)[0], StatusOK, "a hypervisor or the firmware")
}

// TestTheKernelSaysWhatXDPAVethHas holds the doctor's reading of the kernel's family netdev against a driver that is known.
func TestTheKernelSaysWhatXDPAVethHas(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := xdpFeaturesOf(l.Attrs().Index); err != nil || got&(xdpBasic|xdpFragments) != xdpBasic|xdpFragments {
		t.Errorf("the features are %#x, %v", got, err)
	}
	if got, err := xdpFeaturesOf(1 << 20); err == nil {
		t.Errorf("a link that is not there has %#x", got)
	}
}
