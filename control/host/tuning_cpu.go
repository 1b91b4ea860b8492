package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineFiles are /sys and /proc, below a root that tests lend.
type machineFiles struct{ root string }

func (m machineFiles) path(elements ...string) string {
	return filepath.Join(append([]string{m.root}, elements...)...)
}

func (m machineFiles) read(elements ...string) (string, error) {
	data, err := os.ReadFile(m.path(elements...))
	return strings.TrimSpace(string(data)), err
}

const cpuDir = "sys/devices/system/cpu"

// cpus reads a list such as 0-3,8.
func parseCPUs(list string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(list, ",") {
		if part == "" { // a node without CPUs
			continue
		}
		first, last, span := strings.Cut(part, "-")
		if !span {
			last = first
		}
		low, err := strconv.Atoi(first)
		high, errLast := strconv.Atoi(last)
		if err = errors.Join(err, errLast); err != nil {
			return nil, fmt.Errorf("%q is no list of CPUs", list)
		}
		for n := low; n <= high; n++ {
			out = append(out, n)
		}
	}
	return out, nil
}

func (m machineFiles) online() ([]int, error) {
	list, err := m.read(cpuDir, "online")
	if err != nil {
		return nil, err
	}
	return parseCPUs(list)
}

// near are the online CPUs of a PCI device's NUMA node, the first thread of each core before any second one.
func (m machineFiles) near(bus string) ([]int, error) {
	cpus, err := m.online()
	if err != nil {
		return nil, err
	}
	if node, err := m.read("sys/bus/pci/devices", bus, "numa_node"); err == nil && node != "-1" {
		list, err := m.read("sys/devices/system/node/node"+node, "cpulist")
		if err == nil {
			own, err := parseCPUs(list)
			if err != nil {
				return nil, err
			}
			if here := filter(cpus, func(n int) bool { return slices.Contains(own, n) }); len(here) > 0 {
				cpus = here
			}
		}
	}
	second := func(n int) int {
		siblings, err := m.read(cpuDir, "cpu"+strconv.Itoa(n), "topology/thread_siblings_list")
		if list, parseErr := parseCPUs(siblings); err == nil && parseErr == nil {
			return max(0, slices.Index(list, n))
		}
		return 0
	}
	slices.SortStableFunc(cpus, func(a, b int) int { return second(a) - second(b) })
	return cpus, nil
}

// queueIRQ is an interrupt of one queue, or of the two of a number.
type queueIRQ struct{ number, queue int }

// A queue's interrupt has its number at the end: virtio0-input.1, ice-eth0-TxRx-1, mlx5_comp1@pci:0000:01:00.0. Others, of links and
// mailboxes, have none or one of these words.
var (
	queueNumber = regexp.MustCompile(`([0-9]+)(@.*)?$`)
	otherIRQ    = regexp.MustCompile(`async|fdir|ctrl|cmd|misc|mgmnt`)
)

// queueIRQs are those in use: a driver asks for most when the link is set up.
func (m machineFiles) queueIRQs(link, bus string) ([]queueIRQ, error) {
	entries, err := os.ReadDir(m.path("sys/bus/pci/devices", bus, "msi_irqs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []queueIRQ
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		actions, err := m.read("sys/kernel/irq", e.Name(), "actions")
		found := queueNumber.FindStringSubmatch(actions)
		if err != nil || actions == link || found == nil || otherIRQ.MatchString(actions) {
			continue
		}
		queue, err := strconv.Atoi(found[1])
		if err == nil {
			out = append(out, queueIRQ{number, queue})
		}
	}
	slices.SortFunc(out, func(a, b queueIRQ) int { return a.number - b.number })
	return out, nil
}

// irqTuner has interrupts by their numbers, and as the value the CPUs that serve them.
type irqTuner struct {
	machineFiles
	bus func(link string) (string, error) // of PCI: 0000:01:00.0
}

func (t irqTuner) irqs(link string) (irqs []queueIRQ, bus string, err error) {
	if bus, err = t.bus(link); err != nil {
		return nil, "", err
	}
	if bus == "" {
		return nil, "", fmt.Errorf("%s (%s) has no interrupts of its own", link, driver(link))
	}
	irqs, err = t.queueIRQs(link, bus)
	return irqs, bus, err
}

// resolve gives the queues of equal number one CPU, and each number the next one.
func (t irqTuner) resolve(link string, want Values) (Values, error) {
	irqs, bus, err := t.irqs(link)
	if err != nil {
		return nil, err
	}
	var cpus []int
	if want[""] == "auto" {
		cpus, err = t.near(bus)
	} else {
		cpus, err = parseCPUs(want[""])
	}
	if err != nil || len(cpus) == 0 {
		return nil, errors.Join(err, fmt.Errorf("no CPU for the interrupts of %s", link))
	}
	var queues []int
	for _, i := range irqs {
		queues = append(queues, i.queue)
	}
	slices.Sort(queues)
	queues = slices.Compact(queues)
	out := Values{}
	for _, i := range irqs {
		out[strconv.Itoa(i.number)] = strconv.Itoa(cpus[slices.Index(queues, i.queue)%len(cpus)])
	}
	return out, nil
}

func (t irqTuner) read(link string) (Values, error) {
	irqs, _, err := t.irqs(link)
	if err != nil {
		return nil, err
	}
	out := Values{}
	for _, i := range irqs {
		cpus, err := t.machineFiles.read("proc/irq", strconv.Itoa(i.number), "smp_affinity_list")
		if errors.Is(err, fs.ErrNotExist) { // given back meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		out[strconv.Itoa(i.number)] = cpus
	}
	return out, nil
}

func (t irqTuner) write(link string, v Values) error {
	for _, irq := range sortedKeys(v) {
		if err := os.WriteFile(t.path("proc/irq", irq, "smp_affinity_list"), []byte(v[irq]), 0); err != nil {
			return fmt.Errorf("interrupt %s of %s to CPU %s: %w", irq, link, v[irq], err)
		}
	}
	return nil
}

// governorTuner has cpufreq's policies by their names: CPUs that change their clock together.
type governorTuner struct{ machineFiles }

func (t governorTuner) policies() ([]string, error) {
	dirs, err := filepath.Glob(t.path(cpuDir, "cpufreq/policy*"))
	if err == nil && len(dirs) == 0 {
		err = errors.New("this machine has no CPU frequency scaling: a hypervisor or the firmware decides about the clock")
	}
	for i := range dirs {
		dirs[i] = filepath.Base(dirs[i])
	}
	return dirs, err
}

func (t governorTuner) resolve(_ string, want Values) (Values, error) {
	policies, err := t.policies()
	out := Values{}
	for _, p := range policies {
		out[p] = want[""]
	}
	return out, err
}

func (t governorTuner) read(string) (Values, error) {
	out := Values{}
	policies, _ := t.policies() // none, none is read
	for _, p := range policies {
		name, err := t.machineFiles.read(cpuDir, "cpufreq", p, "scaling_governor")
		if err != nil {
			return nil, err
		}
		out[p] = name
	}
	return out, nil
}

func (t governorTuner) write(_ string, v Values) error {
	for _, p := range sortedKeys(v) {
		if err := os.WriteFile(t.path(cpuDir, "cpufreq", p, "scaling_governor"), []byte(v[p]), 0); err != nil {
			return fmt.Errorf("%s to %s: %w", p, v[p], err)
		}
	}
	return nil
}

// busOf is where the device of a link is, as drivers say; "" where it has none (veth).
func busOf(fd int, link string) (string, error) {
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, link)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return unix.ByteSliceToString(info.Bus_info[:]), nil
}
