package host

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// lend writes files below a root that stands for "/".
func lend(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const bus = "0000:01:00.0"

// twoNodes is a server of two NUMA nodes with four cores of two threads each, and a NIC at the second one: in use are an interrupt of the
// link, one of the firmware and one for each of six queues.
func twoNodes(t *testing.T) (irqTuner, map[string]string) {
	files := map[string]string{
		cpuDir + "/online": "0-7", "sys/bus/pci/devices/" + bus + "/numa_node": "1", "sys/devices/system/node/node1/cpulist": "2,3,6,7",
	}
	for cpu, siblings := range []string{"0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"} {
		files[cpuDir+"/cpu"+string(rune('0'+cpu))+"/topology/thread_siblings_list"] = siblings
	}
	names := map[string]string{"30": "eth0", "31": "mlx5_async0@pci:" + bus, "40": ""}
	for i, name := range []string{"eth0-TxRx-0", "eth0-TxRx-1", "eth0-TxRx-2", "eth0-TxRx-3", "mlx5_comp4@pci:" + bus, "virtio0-input.5"} {
		names["3"+string(rune('2'+i))] = name
	}
	for irq, name := range names {
		files["sys/bus/pci/devices/"+bus+"/msi_irqs/"+irq] = "msix"
		files["sys/kernel/irq/"+irq+"/actions"] = name
		files["proc/irq/"+irq+"/smp_affinity_list"] = "0-7"
	}
	return irqTuner{machineFiles{lend(t, files)}, func(string) (string, error) { return bus, nil }}, files
}

func (t irqTuner) is(test *testing.T) string {
	test.Helper()
	v, err := t.read("eth0")
	if err != nil {
		test.Fatal(err)
	}
	for irq := range v {
		v[irq] = strings.TrimSpace(v[irq])
	}
	return v.String()
}

func TestInterruptsOfQueuesGoToTheCPUsOfTheNode(t *testing.T) {
	nic, _ := twoNodes(t)
	for wish, want := range map[string]string{
		"auto":  "32 2 33 3 34 6 35 7 36 2 37 3", // first threads first; all of the node's cores; and from the front again
		"1":     "32 1 33 1 34 1 35 1 36 1 37 1",
		"0,4-5": "32 0 33 4 34 5 35 0 36 4 37 5",
	} {
		got, err := nic.resolve("eth0", Values{"": wish})
		if err != nil || got.String() != want {
			t.Errorf("%s is %s, %v; want %s", wish, got, err, want)
		}
	}
}

// TestBothInterruptsOfAQueueGoToOneCPU: virtio has one for each direction.
func TestBothInterruptsOfAQueueGoToOneCPU(t *testing.T) {
	files := map[string]string{cpuDir + "/online": "0-1", "sys/bus/pci/devices/" + bus + "/numa_node": "-1"}
	for irq, name := range map[string]string{"24": "virtio0-config", "25": "virtio0-input.0", "26": "virtio0-output.0", "27": "virtio0-input.1", "28": "virtio0-output.1"} {
		files["sys/bus/pci/devices/"+bus+"/msi_irqs/"+irq] = "msix"
		files["sys/kernel/irq/"+irq+"/actions"] = name
		files["proc/irq/"+irq+"/smp_affinity_list"] = "0"
	}
	nic := irqTuner{machineFiles{lend(t, files)}, func(string) (string, error) { return bus, nil }}
	if got, err := nic.resolve("eth0", Values{"": "auto"}); err != nil || got.String() != "25 0 26 0 27 1 28 1" {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestInterruptsAreSetOnceSeenToDriftAndGivenBack(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	nic, _ := twoNodes(t)
	h := open(t, t.TempDir())
	h.tuners[IRQAffinity] = nic
	before := nic.is(t)
	want := State{Tunings: []Tuning{{"eth0", IRQAffinity, Values{"": "auto"}}}}
	apply(t, h, want)
	if got := nic.is(t); got != "32 2 33 3 34 6 35 7 36 2 37 3" {
		t.Errorf("the interrupts are at %s", got)
	}
	if other, _ := nic.machineFiles.read("proc/irq/31/smp_affinity_list"); other != "0-7" {
		t.Errorf("the firmware's interrupt went to %s", other)
	}
	if err := nic.write("eth0", Values{"33": "0"}); err != nil { // as irqbalance does
		t.Fatal(err)
	}
	if left := steps(t, h, want); !slices.Equal(left, []string{"set link eth0 irq-affinity auto"}) {
		t.Errorf("of drift %q is to do", left)
	}
	apply(t, h, want)
	// A driver that was reset has other interrupts.
	if err := os.Remove(nic.path("sys/bus/pci/devices", bus, "msi_irqs/37")); err != nil {
		t.Fatal(err)
	}
	if left := steps(t, h, want); left != nil {
		t.Errorf("with one queue less %q is to do", left)
	}
	down(t, h)
	if got, _, _ := strings.Cut(before, " 37"); nic.is(t) != got {
		t.Errorf("given back, the interrupts are at %s, before %s", nic.is(t), got)
	}
}

func TestALinkWithoutADeviceHasNoInterrupts(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	err := open(t, t.TempDir()).Apply(t.Context(), setTuning{Tuning{"eth0", IRQAffinity, Values{"": "auto"}}})
	if err == nil || !strings.Contains(err.Error(), "eth0 (veth) has no interrupts of its own") {
		t.Errorf("error %v", err)
	}
}

func TestTheGovernorIsThatOfEveryPolicyAndComesBack(t *testing.T) {
	inNamespace(t)
	root := lend(t, map[string]string{
		cpuDir + "/cpufreq/policy0/scaling_governor": "powersave", cpuDir + "/cpufreq/policy4/scaling_governor": "schedutil",
	})
	h, err := New(slog.New(slog.DiscardHandler), Options{StateDir: t.TempDir(), Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	is := func() string {
		v, err := h.tuners[CPUGovernor].read("")
		if err != nil {
			t.Fatal(err)
		}
		return v.String()
	}
	want := State{Tunings: []Tuning{{"", CPUGovernor, Values{"": "performance"}}}}
	if done := apply(t, h, want); !slices.Equal(done, []string{"set cpu-governor performance"}) || is() != "policy0 performance policy4 performance" {
		t.Errorf("after %q the governors are %s", done, is())
	}
	if err := h.Down(t.Context()); err != nil || is() != "policy0 powersave policy4 schedutil" {
		t.Errorf("given back they are %s, %v", is(), err)
	}
}

func TestAMachineWithoutFrequencyScalingSaysSo(t *testing.T) {
	_, err := governorTuner{machineFiles{t.TempDir()}}.resolve("", Values{"": "performance"})
	if err == nil || !strings.Contains(err.Error(), "no CPU frequency scaling") {
		t.Errorf("error %v", err)
	}
}
