package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/tests/bench/report"
)

const method = `## How it was measured

Sluice is the daemon as it is released, a process in a lane: a generator, a box and a sink in three network namespaces, joined
by veth pairs. It is driven by its own command and a file. Rivals stand in lanes of their own and hold the same lists.
Figures are medians with a bootstrap interval of 95 %%; where there is one round, there is none.

- *Prefixes* are 60 %% /32, 28 %% /24, the rest /16 to /28; nftables, which takes no overlaps, gets the outermost. *Rules* are drop rules of
  ClassBench's ACL shape, one for one.
- *Memory.* Maps: what the kernel accounts to all BPF maps that the daemon pins or holds, a spare generation among them. ipset: its
  own "Size in memory". Kernel growth: slabs that cannot be reclaimed, vmalloc and per-CPU areas of the whole machine, before and after;
  whatever else runs is in it, so it is told from %s entries on. PSS of the daemon when it is quiet, 3 s after nothing moved any more.
- *Changes.* Frames of 64 bytes at %s a second, from a thread of fixed priority, pass while a command runs, from before it begins until after it
  ends. The new list is on the disk in the form that the command reads. In an exchange all prefixes but %d are others. Frames come from
  addresses that only the old list drops, that only the new one drops, that both drop, and that none drops. *Seen* is from the start of the
  command until the last frame that the old list judged; *mixed* are frames judged by the old list after the first that the new one judged;
  *lost*, should have passed before and after, and did not; *leaked*, the reverse. CPU: the command's process, and the daemon in that time.
- *Idle.* The clock of the process, over %s on the wall, all daemons side by side.
- *From power to filtering.* A virtual machine with Debian's kernel, whose init starts the daemon; a tap behind XDP tells the first frame of a list that stays
  away. Its clock counts instructions, one a nanosecond, and jumps while it is idle: what is told is work, on a nominal processor that
  neither stalls nor waits for a disk. Firmware is the machine's own and is not in it.
`

// growthFrom is the least size at which the growth of the whole machine's memory means something.
const growthFrom = 100 * thousand

// Markdown is the whole report.
func (r *Results) Markdown(figures []report.Figure) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Footprint: what it takes to have Sluice\n\nA %s run of revision %s on %s, %s in all. `make bench-footprint` makes it again.\n\n",
		r.Size, r.Revision, r.When.Format(time.DateOnly), r.Took.Round(time.Second))
	b.WriteString(r.Machine.Markdown())
	shown := func(prefix string) {
		for _, f := range figures {
			if strings.HasPrefix(f.File, prefix) {
				fmt.Fprintf(&b, "\n![%s](%s)\n", f.About, f.File)
			}
		}
	}
	b.WriteString("\n## A change of the list, under " + count(r.Rate) + " frames a second\n\n" + r.changeSummary())
	shown("footprint-change")
	for _, w := range []struct {
		what    What
		heading string
	}{{Swap, "All prefixes are others"}, {Add, "One more prefix"}} {
		b.WriteString("\n### " + w.heading + "\n\n" + r.changeTable(w.what))
	}
	b.WriteString("\n### Phases of sluice apply\n\nOf the last round, as the daemon's log tells them, in milliseconds; what is left of the command is its own reading and the way to the daemon.\n\n" + r.phaseTable())
	b.WriteString("\n## Memory\n")
	shown("footprint-memory")
	for _, kind := range []Kind{Prefixes, Rules} {
		fmt.Fprintf(&b, "\n### %s\n\n%s", strings.ToUpper(string(kind[:1]))+string(kind[1:]), r.memoryTable(kind))
	}
	b.WriteString("\n## The idle daemon\n")
	shown("footprint-idle")
	b.WriteString("\n" + r.idleTable() + "\nipset and nftables have no daemon.\n\n## From power to filtering\n")
	shown("footprint-boot")
	b.WriteString("\n" + r.bootTable())
	fmt.Fprintf(&b, "\n"+method, count(growthFrom), count(r.Rate), keysOfProbe, r.idleTime().Round(time.Second))
	return b.String()
}

func count(n int) string { return report.Thousands(fmt.Sprint(n)) }

func megabytes(bytes int64) string {
	if bytes == 0 {
		return "-"
	}
	return report.Digits(float64(bytes) / 1e6)
}

// changeSummary holds Sluice's ways against those of the rivals, by what frames saw in the same rounds.
func (r *Results) changeSummary() string {
	var b strings.Builder
	for _, m := range r.Changes {
		if m.Rival == Sluice {
			continue
		}
		for _, own := range r.Changes {
			if own.Rival == Sluice && own.What == m.What && own.Size == m.Size {
				ratio := report.Ratio(own.of(visible), m.of(visible))
				fmt.Fprintf(&b, "- %s, %s prefixes: `%s` is seen after %s of the time of `%s`.\n", m.What, count(m.Size), own.Label, ratio, m.Label)
			}
		}
	}
	lost := 0
	for _, m := range r.Changes {
		if m.Rival == Sluice {
			lost += m.sum(func(c *Change) int { return c.Lost + c.Leaked + c.Mixed })
		}
	}
	fmt.Fprintf(&b, "- Of all frames while Sluice changed, %s were lost, leaked or judged by the old list after the new one had begun.\n", count(lost))
	return b.String()
}

func visible(c *Change) float64 { return milliseconds(c.Visible()) }

func (r *Results) changeTable(what What) string {
	var rows [][]string
	for _, m := range r.Changes {
		if m.What != what {
			continue
		}
		number := func(of func(*Change) int) string { return count(m.sum(of)) }
		rows = append(rows, []string{
			count(m.Size) + ": `" + m.Label + "`", report.Of(m.of(visible)).String(),
			report.Of(m.of(func(c *Change) float64 { return milliseconds(c.Command) })).String(),
			report.Of(m.of(func(c *Change) float64 { return milliseconds(c.CPU) })).String(),
			number(func(c *Change) int { return c.Mixed }), number(func(c *Change) int { return c.Lost }), number(func(c *Change) int { return c.Leaked }),
			number(func(c *Change) int { return c.Frames }),
			report.Digits(report.Of(m.of(func(c *Change) float64 { return milliseconds(c.Pause) })).Median),
		})
	}
	return report.Table([]string{"prefixes: command", "seen, ms", "command, ms", "CPU, ms", "mixed", "lost", "leaked", "of frames", "longest gap between frames, ms"}, rows)
}

func (r *Results) phaseTable() string {
	var rows [][]string
	for _, m := range r.Changes {
		if len(m.Phases) > 0 && m.Label == "sluice apply" {
			rows = append(rows, []string{count(m.Size) + " prefixes, " + string(m.What), phases(m.Phases)})
		}
	}
	return report.Table([]string{"change", "phases"}, rows)
}

// phases are in order of what they took; what took less than a millisecond is left out.
func phases(of map[string]time.Duration) string {
	names := slices.SortedFunc(maps.Keys(of), func(a, b string) int {
		if of[a] != of[b] {
			return int(of[b] - of[a])
		}
		return strings.Compare(a, b)
	})
	var texts []string
	for _, name := range names {
		if of[name] >= time.Millisecond {
			texts = append(texts, fmt.Sprintf("%s %d", name, of[name].Milliseconds()))
		}
	}
	return strings.Join(texts, ", ")
}

func (r *Results) memoryTable(kind Kind) string {
	header := []string{"MB"}
	for _, size := range r.sizes(kind) {
		header = append(header, count(size))
	}
	var rows [][]string
	row := func(label, key string, value func(Memory) string) {
		cells := []string{label}
		any := false
		for _, size := range r.sizes(kind) {
			cell := "-"
			if m := r.memory(kind, size, key); m.Size > 0 {
				cell = value(m)
			}
			any = any || cell != "-"
			cells = append(cells, cell)
		}
		if any {
			rows = append(rows, cells)
		}
	}
	row("Sluice, tables of generations", Sluice, func(m Memory) string { return megabytes(m.Maps.Tables) })
	row("Sluice, state: flows, counters, bans, rings", Sluice, func(m Memory) string { return megabytes(m.Maps.State) })
	row("Sluice's daemon, PSS when quiet", Sluice, func(m Memory) string { return megabytes(m.Resident.PSS) })
	row("of it heap and stacks", Sluice, func(m Memory) string { return megabytes(m.Resident.Anonymous) })
	row("Sluice's daemon, peak of RSS", Sluice, func(m Memory) string { return megabytes(m.Resident.Peak) })
	row("ipset", IPSet, func(m Memory) string { return megabytes(m.Own) })
	for _, c := range Rivals {
		row(c.Label+", growth of the kernel", c.Key, func(m Memory) string {
			if m.Size < growthFrom {
				return "-"
			}
			return megabytes(m.Growth)
		})
	}
	for _, c := range Rivals {
		row(c.Label+", seconds until it was loaded", c.Key, func(m Memory) string { return report.Digits(m.Load.Seconds()) })
	}
	return report.Table(header, rows)
}

func (r *Results) idleTime() (wall time.Duration) {
	for _, i := range r.Idle {
		wall = i.Wall
	}
	return wall
}

func (r *Results) idleTable() string {
	var rows [][]string
	for _, i := range r.Idle {
		rows = append(rows, []string{i.label(), fmt.Sprintf("%.3f", i.Percent()), report.Digits(i.Wakeups), megabytes(i.Resident.PSS)})
	}
	return report.Table([]string{"daemon", "% of one processor", "wake-ups a second", "PSS, MB"}, rows)
}

func (i Idle) label() string {
	return fmt.Sprintf("%s prefixes, %s flows", count(i.Prefixes), count(i.Flows))
}

func (r *Results) bootTable() string {
	if len(r.Boot) == 0 {
		return ""
	}
	header, total := []string{"seconds, kernel " + r.Boot[0].Kernel}, []string{"**all of it**"}
	rows := make([][]string, len(r.Boot[0].Stages))
	for i, s := range r.Boot[0].Stages {
		rows[i] = []string{s.What}
	}
	for _, b := range r.Boot {
		header = append(header, count(b.Prefixes)+" prefixes")
		total = append(total, fmt.Sprintf("**%.2f**", b.total().Seconds()))
		for i, s := range b.Stages {
			rows[i] = append(rows[i], fmt.Sprintf("%.2f (%.0f %%)", s.Took.Seconds(), 100*s.Took.Seconds()/b.total().Seconds()))
		}
	}
	text := report.Table(header, append(rows, total)) + "\nThe daemon's own phases until then, in ms: "
	var parts []string
	for _, b := range r.Boot {
		parts = append(parts, fmt.Sprintf("%s prefixes: %s", count(b.Prefixes), phases(b.Phases)))
	}
	return text + strings.Join(parts, "; ") + ".\n"
}

func (b Boot) total() (all time.Duration) {
	for _, s := range b.Stages {
		all += s.Took
	}
	return all
}
