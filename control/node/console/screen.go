// Package console draws the status screen of a node's tty and serial line: plain text, what is wrong first.
package console

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/control/api"
	"sluice/control/engine"
	"sluice/plural"
)

// The size that every terminal and serial line has.
const (
	Width  = 80
	Height = 24
)

// View is what there is to show.
type View struct {
	Now        time.Time
	Up         time.Duration // of the machine
	Version    string        // see Options
	Login      bool
	Asked      time.Time // when the daemon told what is below; zero: it has told nothing yet
	Missed     int       // looks since then, in a row, that nobody answered
	Err        error     // why there is no Status
	Untold     Untold
	Status     api.Status
	Interfaces []api.Interface
	Neighbors  []api.Neighbor
	Tunnels    []api.Tunnel
}

// Untold says of each table why it could not be had.
type Untold struct{ Interfaces, Neighbors, Tunnels error }

// Screen is the whole screen: Height lines of at most Width characters, of ASCII.
func (v View) Screen() string {
	lines := []string{v.head(), v.rule()}
	foot := []string{strings.Repeat("-", Width), v.foot()}
	room := Height - len(lines) - len(foot)
	lines = append(lines, v.body(room)...)
	for len(lines) < Height-len(foot) {
		lines = append(lines, "")
	}
	lines = append(lines, foot...)
	for i, line := range lines {
		lines[i] = strings.TrimRight(cut(line, Width), " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

func (v View) head() string {
	left := "Sluice " + cmp.Or(v.Status.Image, v.Status.Version, v.Version)
	if v.Status.Node != "" {
		left = v.Status.Node + "   " + left
	}
	right := fmt.Sprintf("up %s   %s UTC", upText(v.Up), v.Now.UTC().Format("2006-01-02 15:04"))
	return fmt.Sprintf("%-*s %s", Width-1-len(right), cut(left, Width-1-len(right)), right)
}

// rule is a line, with a mark where what is below is not of now.
func (v View) rule() string {
	mark := ""
	if v.Missed > 0 && v.Err == nil && !v.Asked.IsZero() {
		mark = v.Asked.UTC().Format("-- as of 15:04:05: the daemon has not answered since ")
	}
	return mark + strings.Repeat("-", Width-len(mark))
}

func (v View) foot() string {
	switch {
	case v.Login:
		return "Press Enter to log in."
	case v.Asked.IsZero(): // who may log in is known with the configuration
		return "No login yet."
	case v.Status.Boot != nil && v.Status.Boot.Held:
		return "No login here, and no configuration is taken: see `boot configuration` above."
	case slices.ContainsFunc(v.Status.Engine.Conditions, func(c engine.Condition) bool {
		return c.Type == engine.ConditionMaintenance && c.Status == engine.True
	}):
		return "No login here: put a good sluice.yaml on a stick or partition 2, and restart."
	}
	return "No login here: the configuration enables none (node.console)."
}

func upText(d time.Duration) string {
	days, rest := d/(24*time.Hour), d%(24*time.Hour)
	clock := fmt.Sprintf("%d:%02d", rest/time.Hour, rest%time.Hour/time.Minute)
	if days > 0 {
		return plural.Of(int(days), "day", "days") + " " + clock
	}
	return clock
}

// list is a table of the screen, and what is said where there is no room for it.
type list struct {
	lines   []string
	summary string
}

// fewest is how many lines of a table are worth its head.
const fewest = 4

// body has problems first, on half of the room at most. The tables share what is left: the last ones become one line where the first,
// with the addresses, would have none.
func (v View) body(room int) []string {
	if text := v.instead(); text != nil {
		return text
	}
	out := append(v.problems(room/2-2), "")
	out = append(out, v.state()...)
	tables := slices.DeleteFunc([]list{v.interfaces(), v.neighbors(), v.tunnels()}, func(l list) bool { return len(l.lines) == 0 })
	left := room - len(out)
	for i := len(tables) - 1; i > 0 && height(tables) > left; i-- {
		if height(tables[:1])+height(tables[1:]) > left && len(tables[i].lines) > 1 {
			tables[i] = list{lines: []string{tables[i].summary}}
		}
	}
	for i, t := range tables {
		mine := left - height(tables[i+1:])
		if len(t.lines) > 1 {
			out = append(append(out, ""), shorten(t.lines, max(mine-1, fewest))...)
		} else {
			out = append(out, t.lines...)
		}
		left = room - len(out)
	}
	return out[:min(len(out), room)]
}

// instead is what to say where there is no status; nil: there is one.
func (v View) instead() []string {
	var answer *api.Failure
	switch {
	case errors.As(v.Err, &answer):
		return wrap("! ", "THE DAEMON CANNOT TELL ITS STATUS: "+answer.Message, 6)
	case v.Err != nil:
		stays := "journalctl -u sluice"
		if !v.Login {
			stays = "restart the node"
		}
		return append(wrap("! ", "THE DAEMON DOES NOT ANSWER: "+v.Err.Error(), 6), "",
			"It is started again by itself, and what was loaded into the kernel goes on",
			"filtering and forwarding meanwhile. Where this stays: "+stays)
	case v.Asked.IsZero():
		return []string{"Waiting for the daemon."}
	}
	return nil
}

// height is how many lines tables take, with an empty one in front of each.
func height(tables []list) (n int) {
	for _, t := range tables {
		if n += len(t.lines); len(t.lines) > 1 {
			n++
		}
	}
	return n
}

// shorten leaves the first lines, and says how many are missing.
func shorten(lines []string, most int) []string {
	if len(lines) <= most {
		return lines
	}
	return append(slices.Clone(lines[:most-1]), fmt.Sprintf("  and %d more", len(lines)-most+1))
}

// problems are what somebody should look at, a line or two each.
func (v View) problems(most int) []string {
	var list [][]string
	add := func(format string, args ...any) { list = append(list, wrap("! ", fmt.Sprintf(format, args...), 3)) }
	e := v.Status.Engine
	for _, c := range e.Conditions {
		if bad(c) {
			text := strings.TrimSpace(c.Message)
			if text == "" {
				text = c.Reason
			}
			add("%s: %s", titles[c.Type], text)
		}
	}
	if b := v.Status.Boot; b != nil {
		if b.Outcome == "rejected" {
			add("boot configuration: %s", b.Text())
		}
		for _, p := range b.Problems {
			add("boot configuration: %s", p)
		}
	}
	if e.Down {
		add("taken down: sluice apply brings it back")
	}
	for _, i := range v.Interfaces {
		if state := linkText(i); state != "up" && i.Role != "" && i.Role != "workload" { // containers come and go, and nobody asked for one without a role
			add("interface %s: %s", i.Name, state)
		}
	}
	for _, n := range v.Neighbors {
		if n.State != "established" {
			why := n.LastError
			if n.LastDial != nil {
				why = n.LastDial.Error
			}
			add("BGP neighbor %s (%s): %s%s", n.Name, n.Address, n.State, because(n.Down, why))
		}
	}
	if t := v.Status.Tunnels; t != nil {
		for _, x := range t.Troubles {
			add("tunnel %s, peer %s: %s%s", x.Tunnel, x.Peer, x.State, because(x.Why))
		}
	}
	switch {
	case len(list) > 0:
	case v.Untold != Untold{}:
		return []string{"No problems in what is known."}
	default:
		return []string{"No problems."}
	}
	return fit(list, most)
}

// fit takes whole problems for as long as there is room, and says how many are missing.
func fit(list [][]string, most int) (out []string) {
	for i, lines := range list {
		last := i == len(list)-1
		if len(out)+len(lines) > most || !last && len(out)+len(lines) == most {
			if len(out) == 0 {
				out = lines[:min(len(lines), most-1)]
				i++
			}
			if missing := len(list) - i; missing > 0 {
				out = append(out, fmt.Sprintf("  and %s: sluice show status", plural.Of(missing, "more problem", "more problems")))
			}
			return out
		}
		out = append(out, lines...)
	}
	return out
}

// titles are the conditions of the engine for a person; those that are bad when they hold, and those that are bad when they do not.
var titles = map[string]string{
	engine.ConditionMaintenance: "MAINTENANCE STATE", engine.ConditionDegraded: "degraded", engine.ConditionInSync: "not in sync",
	engine.ConditionChecks: "checks fail", engine.ConditionSetFiles: "set files", engine.ConditionConntrack: "flow table",
	engine.ConditionTunnels: "tunnels", engine.ConditionWorkloads: "workloads refused", engine.ConditionInterfaces: "interfaces missing",
	engine.ConditionStateDir: "state directory", engine.ConditionStateFormat: "newer state left alone", engine.ConditionCharon: "strongSwan", engine.ConditionBFD: "BFD",
	engine.ConditionFlowSpec: "FlowSpec",
}

func bad(c engine.Condition) bool {
	switch c.Type {
	case engine.ConditionMaintenance, engine.ConditionDegraded, engine.ConditionConntrack, engine.ConditionTunnels:
		return c.Status == engine.True && c.Type != engine.ConditionTunnels // tunnels are told one by one
	case engine.ConditionInSync:
		return c.Status == engine.False && c.Reason != engine.ConditionDegraded
	}
	return c.Status == engine.False
}

func because(why ...string) string {
	for _, w := range why {
		if w != "" {
			return ": " + w
		}
	}
	return ""
}
