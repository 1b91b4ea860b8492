//go:build vmguest

package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"sluice/control/host"
)

func nicOf(t *testing.T, n *node, name string) (nic host.NIC) {
	t.Helper()
	n.do(t, func() error {
		nics, err := host.NICsOf(context.Background(), []string{name})
		nic = nics[name]
		return err
	})
	return nic
}

// interrupts are those of a name, and how many each CPU has taken of them.
func interrupts(t *testing.T, named string) (byCPU []int) {
	t.Helper()
	text, err := os.ReadFile("/proc/interrupts")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	byCPU = make([]int, len(strings.Fields(lines[0])))
	for _, line := range lines[1:] {
		words := strings.Fields(line)
		if len(words) < len(byCPU)+2 || !strings.Contains(words[len(words)-1], named) {
			continue
		}
		for cpu := range byCPU {
			n, err := strconv.Atoi(words[1+cpu])
			if err != nil {
				t.Fatal(err)
			}
			byCPU[cpu] += n
		}
	}
	return byCPU
}

// TestNICRingsAndMoreOfAnE1000eAreSetAndGivenBack is about a driver of hardware, as QEMU makes it.
func TestNICRingsAndMoreOfAnE1000eAreSetAndGivenBack(t *testing.T) {
	w := newWired(t)
	before := nicOf(t, w.box, w.uplink)
	if before.Driver != "e1000e" || before.MaxRXRing != 4096 || before.RXRing != 256 || !before.Coalesces || !before.FlowControl || !before.Interrupts || before.MaxQueues != 0 {
		t.Fatalf("the NIC is %+v", before)
	}
	h := w.box.host(t, t.TempDir())
	defer h.Close()
	want := host.State{Tunings: []host.Tuning{
		{Link: w.uplink, What: host.Coalescing, Values: host.Values{"rx-usecs": "100"}},
		{Link: w.uplink, What: host.FlowControl, Values: host.Values{"rx": "on", "tx": "on"}},
		{Link: w.uplink, What: host.Offloads, Values: host.Values{"gro": "off", "tso": "off"}},
		{Link: w.uplink, What: host.Rings, Values: host.Values{"rx": "1024", "tx": "512"}},
	}}
	w.box.becomes(t, h, want)
	w.echo(t)
	if n := nicOf(t, w.box, w.uplink); n.RXRing != 1024 || n.TXRing != 512 || n.Offloads["gro"] || n.Offloads["tso"] {
		t.Errorf("it became %+v", n)
	}
	err := w.box.try(func() error {
		return converge(h, host.State{Tunings: []host.Tuning{{Link: w.uplink, What: host.Rings, Values: host.Values{"rx": "1027"}}}})
	})
	if err == nil || !strings.Contains(err.Error(), `the driver makes "rx 1032 tx 256" of "rx 1027 tx 256"`) {
		t.Errorf("a ring that the driver rounds: %v", err)
	}
	err = w.box.try(func() error {
		return converge(h, host.State{Tunings: []host.Tuning{{Link: w.uplink, What: host.Queues, Values: host.Values{"": "4"}}}})
	})
	if err == nil || !strings.Contains(err.Error(), "operation not supported") {
		t.Errorf("queues of a driver that has one: %v", err)
	}
	w.box.do(t, func() error { return h.Down(context.Background()) })
	w.echo(t)
	if after := nicOf(t, w.box, w.uplink); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("given back it is %+v, before %+v", after, before)
	}
}

// TestNICInterruptsAreServedWhereTheFileSays counts what each CPU has taken while packets come.
func TestNICInterruptsAreServedWhereTheFileSays(t *testing.T) {
	w := newWired(t)
	h := w.box.host(t, t.TempDir())
	defer h.Close()
	rx := w.uplink + "-rx-0"
	for _, cpu := range []int{1, 0, 1} {
		w.box.becomes(t, h, host.State{Tunings: []host.Tuning{{Link: w.uplink, What: host.IRQAffinity, Values: host.Values{"": strconv.Itoa(cpu)}}}})
		w.echo(t) // the kernel moves an interrupt with the next one
		before := interrupts(t, rx)
		for range 20 {
			w.echo(t)
		}
		after := interrupts(t, rx)
		if len(after) != 2 || after[cpu] == before[cpu] || after[1-cpu] != before[1-cpu] {
			t.Errorf("with %s at CPU %d: %v before, %v after", rx, cpu, before, after)
		}
	}
	w.box.do(t, func() error { return h.Down(context.Background()) })
}

// manyQueues is the virtio NIC with four queues.
func manyQueues(t *testing.T) (box *node, name string) {
	t.Helper()
	box = newNode(t, netns.New)
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Attrs().HardwareAddr.String() == "52:54:00:00:00:03" {
			name = l.Attrs().Name
			home, err := netns.Get()
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetNsFd(l, int(box.ns)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				defer home.Close()
				if err := box.nl.LinkSetNsFd(box.link(t, name), int(home)); err != nil {
					t.Error(err)
				}
			})
			box.setUp(t, name)
			return box, name
		}
	}
	t.Fatal("the machine has no NIC 52:54:00:00:00:03")
	return nil, ""
}

func inUse(t *testing.T, n *node, name string) (queues int) {
	t.Helper()
	n.do(t, func() error {
		h, err := host.New(quiet(), host.Options{StateDir: t.TempDir()})
		if err != nil {
			return err
		}
		defer h.Close()
		status, err := h.Status(context.Background())
		if i := slices.IndexFunc(status, func(s host.InterfaceStatus) bool { return s.Name == name }); i >= 0 {
			queues = status[i].RxQueues
		}
		return err
	})
	return queues
}

// places are the CPUs of the interrupts of queues, by the names of these.
func places(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	dirs, err := filepath.Glob("/proc/irq/*/virtio*put.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		cpus, err := os.ReadFile(filepath.Join(filepath.Dir(d), "smp_affinity_list"))
		if err != nil {
			t.Fatal(err)
		}
		_, queue, _ := strings.Cut(filepath.Base(d), "-")
		out[queue] = strings.TrimSpace(string(cpus))
	}
	return out
}

func TestNICQueuesAndRingsOfVirtio(t *testing.T) {
	box, name := manyQueues(t)
	before := nicOf(t, box, name)
	if before.Driver != "virtio_net" || before.MaxQueues != 4 || before.MaxRXRing == 0 {
		t.Fatalf("the NIC is %+v", before)
	}
	h := box.host(t, t.TempDir())
	defer h.Close()
	want := func(queues string) host.State {
		return host.State{Tunings: []host.Tuning{
			{Link: name, What: host.IRQAffinity, Values: host.Values{"": "auto"}},
			{Link: name, What: host.Queues, Values: host.Values{"": queues}},
			{Link: name, What: host.Rings, Values: host.Values{"rx": "128", "tx": "64"}},
		}}
	}
	box.becomes(t, h, want("4"))
	if n := nicOf(t, box, name); n.Queues != 4 || n.RXRing != 128 || n.TXRing != 64 || inUse(t, box, name) != 4 {
		t.Errorf("it became %+v, with %d queues in use", n, inUse(t, box, name))
	}
	// input and output of a queue at one CPU, queue after queue.
	for queue, cpu := range map[string]string{"input.0": "0", "output.0": "0", "input.1": "1", "output.1": "1", "input.2": "0", "output.3": "1"} {
		if got := places(t)[queue]; got != cpu {
			t.Errorf("%s is at CPU %s, want %s", queue, got, cpu)
		}
	}

	// With a program of ours there, the driver changes neither its queues nor GRO in hardware: compile relies on both.
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	box.becomes(t, h, want("2"))
	var attached link.Link
	box.do(t, func() (err error) {
		attached, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: box.link(t, name).Attrs().Index, Flags: link.XDPDriverMode})
		return err
	})
	defer attached.Close()
	box.becomes(t, h, want("2")) // it counts two more by now, one a CPU for XDP
	if n := nicOf(t, box, name); !n.XDP || n.Queues != 4 {
		t.Errorf("with a program it is %+v", n)
	}
	for _, other := range []host.State{want("4"), {}} {
		err = box.try(func() error { return converge(h, other) })
		if err == nil || !strings.Contains(err.Error(), "virtio_net changes its queues only while no XDP program is attached") {
			t.Errorf("queues beside a program: %v", err)
		}
	}
	box.becomes(t, h, want("2"))
	err = box.try(func() error {
		return h.Apply(context.Background(), h.Diff(host.State{}, host.State{Tunings: []host.Tuning{{Link: name, What: host.Offloads, Values: host.Values{"gro_hw": "off"}}}})[0])
	})
	t.Logf("GRO in hardware beside a program: %v; the NIC was %+v", err, before)
	if before.Offloads["gro_hw"] && err == nil {
		t.Error("virtio_net switches GRO in hardware beside a program")
	}
	if err := attached.Close(); err != nil {
		t.Fatal(err)
	}
	box.do(t, func() error { return h.Down(context.Background()) })
	if after := nicOf(t, box, name); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("given back it is %+v, before %+v", after, before)
	}
}
