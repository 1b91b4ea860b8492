package main

import (
	"fmt"
	"slices"
	"strings"

	"sluice/control/api"
)

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
