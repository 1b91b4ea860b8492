package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/control/api"
)

func printBGP(c *cli, list []api.Neighbor) error {
	t := c.table("NEIGHBOR", "ADDRESS", "ASN", "STATE", "UPTIME", "BFD", "FAMILY", "RECEIVED", "ACCEPTED", "ADVERTISED")
	for _, n := range list {
		up := "-"
		if n.State == "established" {
			up = (time.Duration(n.UptimeSeconds) * time.Second).String()
		}
		if len(n.Families) == 0 {
			t.row(n.Name, n.Address, n.ASN, n.State, up, bfdText(n), "", "", "", "")
		}
		for _, f := range n.Families {
			t.row(n.Name, n.Address, n.ASN, n.State, up, bfdText(n), f.Family, f.Received, f.Accepted, f.Advertised)
		}
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, n := range list {
		if n.State != "established" && n.LastError != "" {
			fmt.Fprintf(c.out, "%s: %s\n", n.Name, n.LastError)
		}
		if why := bfdWhy(n); why != "" {
			fmt.Fprintf(c.out, "%s: BFD: %s\n", n.Name, why)
		}
	}
	return nil
}

// bfdText is the state of the neighbor's BFD session and, where it is up, after how long a silence it goes down.
func bfdText(n api.Neighbor) string {
	switch {
	case n.BFD == nil:
		return "-"
	case n.BFD.State.String() == "up":
		return "up " + n.BFD.Detection.String()
	}
	return n.BFD.State.String()
}

// bfdWhy says what keeps the neighbor's BFD session from being up, as far as either end knows.
func bfdWhy(n api.Neighbor) string {
	b := n.BFD
	switch {
	case b == nil || b.State.String() == "up":
		return ""
	case b.Error != "":
		return "cannot send: " + b.Error
	case b.RemoteState.String() == "admin-down":
		return "the neighbor has switched it off"
	case b.Diag.String() != "none":
		return b.Diag.String()
	}
	return "the neighbor has not answered yet: is BFD on there?"
}

func printRoutes(c *cli, list []api.Route) error {
	t := c.table("PREFIX", "NEXT HOPS", "METRIC", "STATE")
	for _, r := range list {
		state := "learned"
		if r.Stale {
			state = "stale"
		}
		t.row(r.Prefix, joined(r.NextHops), r.Metric, state)
	}
	return t.print()
}

func printSockets(c *cli, list []api.Socket) error {
	t := c.table("SOCKET", "INTERFACE", "QUEUES", "NO FRAME", "RING FULL", "WRONG PLACE", "OTHER", "REGISTER AT")
	var notes []string
	for _, s := range list {
		lost := []any{"?", "?", "?", "?"}
		if s.Counted {
			lost = []any{s.Lost.NoFrame, s.Lost.RingFull, s.Lost.WrongPlace, s.Lost.Other}
		}
		registered, about := queuesText(s.Queues)
		for _, note := range about {
			notes = append(notes, fmt.Sprintf("%s on %s: %s", s.Name, s.Interface, note))
		}
		t.row(slices.Concat([]any{s.Name, s.Interface, registered}, lost, []any{s.Path})...)
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(c.out, note)
	}
	return nil
}

// queuesText says for which queues somebody is registered, and what of that an operator should know.
func queuesText(queues []api.SocketQueue) (text string, notes []string) {
	var registered, missing, idle []uint32
	inUse := 0
	for _, q := range queues {
		used := q.InUse != nil && *q.InUse
		switch {
		case used && !q.Registered:
			missing = append(missing, q.Queue)
		case q.Registered && q.InUse != nil && !used:
			idle = append(idle, q.Queue)
		}
		if q.Registered {
			registered = append(registered, q.Queue)
		}
		if used {
			inUse++
		}
	}
	switch {
	case len(registered) == 0:
		return "nobody", []string{"nobody is registered, and its packets take the kernel's path"}
	case len(missing) == 0 && len(idle) == 0 && inUse > 0:
		return fmt.Sprintf("all %d", inUse), nil
	}
	text = rangesText(registered)
	if inUse > 0 {
		text += fmt.Sprintf(" of %d", inUse)
	}
	if len(missing) > 0 {
		notes = append(notes, "nobody is registered for queue "+rangesText(missing)+", and its packets take the kernel's path")
	}
	if len(idle) > 0 {
		notes = append(notes, "somebody is registered for queue "+rangesText(idle)+", which the interface does not use")
	}
	return text, notes
}

// rangesText writes sorted numbers as 0-3,7.
func rangesText(sorted []uint32) string {
	var parts []string
	for i := 0; i < len(sorted); {
		last := i
		for last+1 < len(sorted) && sorted[last+1] == sorted[last]+1 {
			last++
		}
		part := fmt.Sprint(sorted[i])
		if last > i {
			part += fmt.Sprintf("-%d", sorted[last])
		}
		parts, i = append(parts, part), last+1
	}
	return strings.Join(parts, ",")
}
