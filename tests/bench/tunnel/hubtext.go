package main

import (
	"fmt"
	"slices"
	"strings"

	"sluice/tests/bench/report"
)

const hubMethod = `A hub is a node with many peers and userspace WireGuard, in a namespace with a wire to a second one, where every peer has an address of its own.
"Sluice" is the whole of it: ` + "`sluice apply`" + ` of a file to a daemon that has policies, XDP and tcx programs as well, timed from the command's begin to its
end; the daemon has looked by then whether the machine holds what it should. "wg" is what wg-quick does where the kernel has no WireGuard: wireguard-go, ` + "`wg setconf`" + `,
and one batch of ip(8) for the routes; a change is ` + "`wg syncconf`" + ` and one batch more. Neither checks, remembers nor takes back anything. The change is that of one
peer's prefix, allowed-ips and route; in each round both lanes build the hub, change it, and take it away, in turn. CPU is that of the node's processes, the
tunnels' own included (handshakes that an apply begins, too), without the commands.

Nobody answers there but in the rows that speak of sessions: those have a device of the WireGuard library for each peer, without an interface, in the
process that measures. A peer that does not answer costs a handshake every 5 s for 90 s of two minutes, which is the protocol's; wg's tunnels pay the same.

`

// hubText is the section of hubs; "" where none was measured.
func (r *Results) hubText() string {
	if len(r.Hubs) == 0 {
		return ""
	}
	return "\n## Many peers\n\n" + hubMethod + targetTable(r.hubTargets()) + "\n" + r.hubTable() + "\n" + r.idleTable()
}

// hubTargets are what was promised of a thousand peers.
func (r *Results) hubTargets() (out []report.Target) {
	for _, h := range r.Hubs {
		if h.Lane == SluiceHub && h.Size.Tunnels*h.Size.Peers == 1000 {
			out = append(out, report.Target{What: h.Size.String() + ": apply, ms", Got: report.Of(h.Apply), Limit: 2000},
				report.Target{What: h.Size.String() + ": change of one, ms", Got: report.Of(h.Change), Limit: 50})
		}
	}
	for _, i := range r.Idle {
		if i.Lane == SluiceHub && i.Size.Tunnels*i.Size.Peers == 1000 {
			out = append(out, report.Target{What: fmt.Sprintf("%s: idle, %% of a core: %s", i.Size, i.What), Got: report.Of([]float64{i.Percent}), Limit: 5})
		}
	}
	return out
}

func targetTable(targets []report.Target) string {
	var rows [][]string
	for _, t := range targets {
		rows = append(rows, []string{t.What, "at most " + report.Digits(t.Limit), t.Got.String(), t.Verdict()})
	}
	return report.Table([]string{"what", "target", "measured", ""}, rows)
}

func (r *Results) hubTable() string {
	var rows [][]string
	for _, own := range r.Hubs {
		if own.Lane != SluiceHub {
			continue
		}
		other := r.rivalOf(own.Size)
		for _, c := range []struct {
			what                string
			mine, theirs        []float64
			cpu, cpuOfTheRivals []float64
		}{{"apply", own.Apply, other.Apply, own.ApplyCPU, other.ApplyCPU}, {"change of one", own.Change, other.Change, own.ChangeCPU, other.ChangeCPU}} {
			rows = append(rows, []string{own.Size.String() + ": " + c.what, report.Of(c.mine).String(), report.Of(c.theirs).String(), report.Ratio(c.mine, c.theirs).String(),
				report.Of(c.cpu).String(), report.Of(c.cpuOfTheRivals).String()})
		}
	}
	return report.Table([]string{"hub", "Sluice, ms", "wg, ms", "Sluice / wg", "Sluice, CPU ms", "wg, CPU ms"}, rows)
}

func (r *Results) rivalOf(s Size) Hub {
	i := slices.IndexFunc(r.Hubs, func(h Hub) bool { return h.Lane == RivalHub && h.Size == s })
	if i < 0 {
		return Hub{}
	}
	return r.Hubs[i]
}

// idleTable is in percent of a core.
func (r *Results) idleTable() string {
	var rows [][]string
	for _, i := range r.Idle {
		if i.Lane != SluiceHub {
			continue
		}
		rival := ""
		if n := slices.IndexFunc(r.Idle, func(o Idle) bool { return o.Lane == RivalHub && o.What == i.What && o.Size == i.Size }); n >= 0 {
			rival = report.Digits(r.Idle[n].Percent)
		}
		rows = append(rows, []string{i.Size.String() + ": " + i.What, report.Digits(i.Percent), report.Digits(i.Percent - i.Tunnels), report.Digits(i.Tunnels), rival})
	}
	return report.Table(strings.Split("idle, % of a core|Sluice|its daemon|its tunnels|wg's tunnels", "|"), rows)
}
