package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/plural"
)

// What the file sets of NICs. A wish that the hardware cannot have is an error of a file that somebody applies; one that was applied
// before goes without it. A NIC that nobody looked at gets its wishes unjudged.

// LooksAtNICs are the links whose hardware compiling cfg has to know: Facts.Host.NICs.
func LooksAtNICs(cfg *config.Config) []string {
	var out []string
	for _, i := range cfg.Interfaces {
		switch {
		case i.NIC != nil:
			out = append(out, nicLinks(i)...)
		case native(i):
			out = append(out, i.Name)
		}
	}
	return out
}

// LooksAtProcessors says whether compiling cfg has to know the CPUs: Facts.Host.Processors.
func LooksAtProcessors(cfg *config.Config) bool {
	return cfg.Node.Governor.Name != "" || slices.ContainsFunc(cfg.Interfaces, func(i config.Interface) bool { return i.NIC != nil && i.NIC.IRQs != nil })
}

// nicLinks are the links that have the hardware of an interface: a bond has that of its members.
func nicLinks(i config.Interface) []string {
	if len(i.Members) > 0 {
		return i.Members
	}
	return []string{i.Name}
}

func native(i config.Interface) bool {
	return i.Role == config.RoleUplink && (i.XDP == config.XDPAuto || i.XDP == config.XDPNative)
}

// NICFaults are what hardware cannot have of the wishes of cfg.
func NICFaults(cfg *config.Config, facts host.Facts) config.Errors {
	_, faults := tunings(cfg, facts)
	return faults
}

// tunings sets what c's file writes, and reports what cannot be.
func (c *compiler) tunings() []host.Tuning {
	out, faults := tunings(c.cfg, c.facts.Host)
	for _, f := range faults {
		c.failNew(f.Pos, f.Path, f.Msg, f.Hint)
	}
	return out
}

func tunings(cfg *config.Config, facts host.Facts) (out []host.Tuning, faults config.Errors) {
	if g := cfg.Node.Governor; g.Name != "" {
		if fault := governorFault(g, facts.Processors); fault != nil {
			faults = append(faults, *fault)
		} else {
			out = append(out, host.Tuning{What: host.CPUGovernor, Values: host.Values{"": g.Name}})
		}
	}
	for n, i := range cfg.Interfaces {
		if i.NIC == nil && !native(i) {
			continue
		}
		for _, link := range nicLinks(i) {
			if !slices.ContainsFunc(facts.Links, func(l host.LinkFact) bool { return l.Name == link }) {
				continue
			}
			is, known := facts.NICs[link]
			t := nicTuner{path: fmt.Sprintf("interfaces[%d].nic.", n), link: link, is: is, known: known, processors: facts.Processors}
			t.tune(i)
			out, faults = append(out, t.out...), append(faults, t.faults...)
		}
	}
	slices.SortFunc(out, func(a, b host.Tuning) int {
		return compareNames(a.Link+"\x00"+string(a.What), b.Link+"\x00"+string(b.What))
	})
	return out, faults
}

func governorFault(g config.Governor, p *host.Processors) *config.Error {
	switch {
	case p == nil || slices.Contains(p.Governors, g.Name):
		return nil
	case len(p.Governors) == 0:
		return &config.Error{Pos: g.Pos, Path: "node.cpu_governor", Msg: "this machine has no CPU frequency scaling: a hypervisor or the firmware decides about the clock",
			Hint: "remove it here, or see the firmware's power settings"}
	}
	return &config.Error{Pos: g.Pos, Path: "node.cpu_governor", Msg: "the kernel has no governor " + g.Name + " here", Hint: "it has " + strings.Join(p.Governors, ", ")}
}

// nicTuner makes the tunings of one link.
type nicTuner struct {
	path, link string
	is         host.NIC
	known      bool
	processors *host.Processors
	out        []host.Tuning
	faults     config.Errors
}

func (t *nicTuner) fail(pos config.Pos, key, hint, format string, args ...any) {
	t.faults = append(t.faults, config.Error{Pos: pos, Path: t.path + key, Msg: t.link + " " + fmt.Sprintf(format, args...), Hint: hint})
}

func (t *nicTuner) want(what host.Tunable, v host.Values) {
	if len(v) > 0 {
		t.out = append(t.out, host.Tuning{Link: t.link, What: what, Values: v})
	}
}

func (t *nicTuner) tune(i config.Interface) {
	t.offloads(i)
	if i.NIC == nil {
		return
	}
	t.queues(i.NIC.Queues)
	rings := host.Values{}
	t.amount(rings, "rx", i.NIC.RXRing, "rings.rx", t.is.MaxRXRing, "receive descriptor", "receive descriptors")
	t.amount(rings, "tx", i.NIC.TXRing, "rings.tx", t.is.MaxTXRing, "transmit descriptor", "transmit descriptors")
	t.want(host.Rings, rings)
	t.coalesce(i.NIC)
	t.flowControl(i.NIC.FlowControl)
	t.interrupts(i.NIC.IRQs)
}

// amount puts a number into v, or what max is.
func (t *nicTuner) amount(v host.Values, name string, a config.Amount, key string, most int, one, many string) {
	n := a.N
	switch {
	case !a.Written():
		return
	case t.known && most == 0:
		t.fail(a.Pos, key, "remove it", "(%s) cannot change its %s", t.is.Driver, many)
		return
	case t.known && n > most:
		t.fail(a.Pos, key, fmt.Sprintf("write %d or less, or max", most), "has %s at most, asked %d", plural.Of(most, one, many), n)
		return
	case a.Max:
		if n = most; n == 0 { // nobody looked
			return
		}
	}
	v[name] = strconv.Itoa(n)
}

func (t *nicTuner) queues(a config.Amount) {
	v := host.Values{}
	t.amount(v, "", a, "queues", t.is.MaxQueues, "queue", "queues")
	t.want(host.Queues, v)
}

// offloads are the file's, and those that drivers want off before they take a program in native mode, where the file does not say.
// virtio_net switches them itself, and lets nobody do it afterwards.
func (t *nicTuner) offloads(i config.Interface) {
	v := host.Values{}
	if i.NIC != nil {
		for _, s := range i.NIC.Offloads {
			if t.known && slices.Contains(t.is.Fixed, s.Name) {
				if t.is.Offloads[s.Name] != s.On {
					t.fail(s.Pos, "offloads."+s.Name, "remove it", "(%s) cannot switch %s %s", t.is.Driver, s.Name, onOff(s.On))
				}
				continue
			}
			v[s.Name] = onOff(s.On)
		}
	}
	if native(i) && t.known && t.is.Driver != "virtio_net" {
		for _, name := range []string{config.OffloadLRO, config.OffloadGROHW} {
			if !slices.Contains(t.is.Fixed, name) {
				v[name] = onOff(false)
			}
		}
	}
	t.want(host.Offloads, v)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (t *nicTuner) coalesce(nic *config.NIC) {
	v := host.Values{}
	set := func(name, key string, pos config.Pos, value string) {
		if t.known && !t.is.Coalesces {
			t.fail(pos, "coalesce."+key, "remove it", "(%s) cannot make its interrupts wait", t.is.Driver)
			return
		}
		v[name] = value
	}
	for _, s := range []struct {
		name, key string
		is        *config.Switch
	}{{"adaptive-rx", "adaptive_rx", nic.AdaptiveRX}, {"adaptive-tx", "adaptive_tx", nic.AdaptiveTX}} {
		if s.is != nil {
			set(s.name, s.key, s.is.Pos, onOff(s.is.On))
		}
	}
	for _, d := range []struct {
		name, key string
		is        *config.Delay
	}{{"rx-usecs", "rx", nic.RXDelay}, {"tx-usecs", "tx", nic.TXDelay}} {
		if d.is != nil {
			set(d.name, d.key, d.is.Pos, strconv.FormatInt(d.is.For.Microseconds(), 10))
		}
	}
	t.want(host.Coalescing, v)
}

func (t *nicTuner) flowControl(s *config.Switch) {
	switch {
	case s == nil:
	case t.known && !t.is.FlowControl:
		t.fail(s.Pos, "flow_control", "remove it", "(%s) has no flow control to switch", t.is.Driver)
	default:
		t.want(host.FlowControl, host.Values{"rx": onOff(s.On), "tx": onOff(s.On)})
	}
}

func (t *nicTuner) interrupts(a *config.IRQAffinity) {
	if a == nil {
		return
	}
	if t.known && !t.is.Interrupts {
		t.fail(a.Pos, "irq_affinity", "remove it", "(%s) has no interrupts of its own", t.is.Driver)
		return
	}
	if len(a.CPUs) == 0 {
		t.want(host.IRQAffinity, host.Values{"": "auto"})
		return
	}
	var list []string
	for _, r := range a.CPUs {
		list = append(list, cpuRange(r))
		for cpu := int(r.First); t.processors != nil && cpu <= int(r.Last); cpu++ {
			if !slices.Contains(t.processors.Online, cpu) {
				t.fail(a.Pos, "irq_affinity", "write auto, or CPUs that are online: see lscpu", "cannot have its interrupts at CPU %d, which is not there or offline", cpu)
				return
			}
		}
	}
	t.want(host.IRQAffinity, host.Values{"": strings.Join(list, ",")})
}

// cpuRange is as the kernel writes it.
func cpuRange(r config.Range) string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}
