package compile

import (
	"slices"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/tc"
)

// What is paced leaves by uplinks, where it waits in fq. An uplink that cannot have fq drops what is faster instead.

// LooksAtQueues names the uplinks about whose queues compiling cfg has to know: Facts.Host.Queues.
func LooksAtQueues(cfg *config.Config, added []Added) []string {
	workload := func(w config.Workload) bool { return w.Bandwidth > 0 }
	too := func(a Added) bool { return a.Bandwidth > 0 }
	lan := func(i config.Interface) bool { return i.Bandwidth > 0 }
	if !slices.ContainsFunc(cfg.Workloads, workload) && !slices.ContainsFunc(added, too) && !slices.ContainsFunc(cfg.Interfaces, lan) {
		return nil
	}
	var uplinks []string
	for _, i := range cfg.Interfaces {
		if i.Role == config.RoleUplink {
			uplinks = append(uplinks, i.Name)
		}
	}
	return uplinks
}

// qdiscs are the uplinks that get fq.
func (c *compiler) qdiscs() []host.Qdisc {
	var out []host.Qdisc
	for _, name := range LooksAtQueues(c.cfg, nil) {
		if c.absent[name] {
			continue
		}
		if why := c.facts.Host.Queues[name].NoFQ; why != "" {
			c.note("uplink %s: %s: bandwidth.egress is held there by dropping what is faster, instead of letting it wait", name, why)
			continue
		}
		out = append(out, host.Qdisc{Link: name, FQ: true})
	}
	slices.SortFunc(out, func(a, b host.Qdisc) int { return compareNames(a.Link, b.Link) })
	return out
}

// keepsTimes says whether an uplink has fq, or gets it.
func (c *compiler) keepsTimes(uplink string) bool {
	return slices.Contains(LooksAtQueues(c.cfg, nil), uplink) && c.facts.Host.Queues[uplink].NoFQ == ""
}

// paced are the interfaces that are there and have a bandwidth.
func (c *compiler) paced() []tc.Paced {
	var out []tc.Paced
	for _, i := range c.cfg.Interfaces {
		if i.Bandwidth > 0 && !c.absent[i.Name] {
			out = append(out, tc.Paced{Interface: i.Name, Rate: i.Bandwidth})
		}
	}
	for _, w := range c.present {
		if w.Bandwidth > 0 {
			out = append(out, tc.Paced{Interface: w.Interface, Rate: w.Bandwidth})
		}
	}
	slices.SortFunc(out, func(a, b tc.Paced) int { return compareNames(a.Interface, b.Interface) })
	return out
}
