package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/control/api"
	"sluice/plural"
)

// printers turn the JSON of a noun into text.
var printers = map[string]func(*cli, json.RawMessage) error{
	"status":     printer(printStatus),
	"interfaces": printer(printInterfaces),
	"policy":     printer(func(c *cli, list []api.Policy) error { return policyView{}.print(c, list, list) }),
	"drops":      printer(printReasons),
	"reasons":    printer(printReasons),
	"sets":       printer(printSets),
	"workloads":  printer(printWorkloads),
	"flows":      printer(printFlows),
	"bgp":        printer(printBGP),
	"routes":     printer(printRoutes),
	"tunnels":    printer(printTunnels),
	"sockets":    printer(printSockets),
	"flowspec":   printer(printFilters),
	"bans":       printer(printBans),
}

func printer[T any](print func(*cli, T) error) func(*cli, json.RawMessage) error {
	return func(c *cli, raw json.RawMessage) error {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("the daemon's answer is not understood (is it of another version?): %w", err)
		}
		return print(c, v)
	}
}

func printStatus(c *cli, s api.Status) error {
	e := s.Engine
	fmt.Fprintf(c.out, "node        %s, sluice %s, pid %d, up %s\n", orDash(s.Node), inImage(s.Version, s.Image), s.PID, c.since(s.Started))
	fmt.Fprintf(c.out, "revision    %s\n", revisionState(e))
	if p := e.Pending; p != nil {
		if p.Confirm {
			fmt.Fprintf(c.out, "pending     goes back to %s in %s unless confirmed\n", revisionText(p.Base), secondsText(p.Remaining))
		} else {
			fmt.Fprintf(c.out, "pending     goes back to %s if a check fails within %s\n", revisionText(p.Base), secondsText(p.Remaining))
		}
		for _, f := range p.Failing {
			fmt.Fprintf(c.out, "  failing   %s: %s\n", f.Check, f.Message)
		}
	}
	for _, path := range e.SetFiles {
		fmt.Fprintf(c.out, "set file    %s differs from revision %d: apply takes it in\n", path, e.Revision)
	}
	if e.FileDiffers && len(e.SetFiles) == 0 {
		fmt.Fprintf(c.out, "file        %s differs from revision %d\n", e.File, e.Revision)
	}
	if s.Boot != nil {
		printBoot(c, *s.Boot)
	}
	fmt.Fprintf(c.out, "generation  xdp %s, tc %s\n", short(s.XDPGeneration), short(s.TCGeneration))
	fmt.Fprintf(c.out, "bgp         %d of %s established\n", s.Established, plural.Of(s.Neighbors, "neighbor", "neighbors"))
	if d := s.Drain; d != nil {
		fmt.Fprintf(c.out, "drain       %s\n", drainText(c, *d))
	}
	if t := s.Tunnels; t != nil {
		fmt.Fprintf(c.out, "tunnels     %s\n", tunnelsText(*t))
	}
	if t := s.Conntrack; t != nil {
		fmt.Fprintf(c.out, "flows       %s\n", conntrackText(*t))
	}
	c.otherVersions(s)
	for _, condition := range e.Conditions {
		line := fmt.Sprintf("condition   %s=%s %s %s", condition.Type, condition.Status, condition.Reason, condition.Message)
		fmt.Fprintln(c.out, strings.TrimRight(line, " "))
	}
	for _, w := range e.Warnings {
		fmt.Fprintf(c.out, "warning     %s\n", w)
	}
	if e.Repaired != "" {
		fmt.Fprintf(c.out, "repaired    %s (%s ago)\n", e.Repaired, c.since(e.RepairedAt))
	}
	if e.LastError != "" {
		fmt.Fprintf(c.out, "last error  %s (%s ago)\n", e.LastError, c.since(e.LastErrorAt))
	}
	return nil
}

// revisionState says which revision is live, and whether the machine holds it.
func revisionState(e api.EngineStatus) string {
	switch {
	case e.Revision == 0:
		return "none"
	case e.Down:
		return fmt.Sprintf("%d, taken down", e.Revision)
	case !e.Applied:
		return fmt.Sprintf("%d, NOT fully applied", e.Revision)
	default:
		return fmt.Sprintf("%d, applied", e.Revision)
	}
}

func printInterfaces(c *cli, list []api.Interface) error {
	t := c.table("INTERFACE", "ROLE", "STATE", "MTU", "XDP", "TCX", "QUEUES", "RINGS", "RX PACKETS", "TX PACKETS", "ADDRESSES")
	for _, i := range list {
		state := "down"
		switch {
		case i.Index == 0:
			state = "missing"
		case i.Up && i.Carrier:
			state = "up"
		case i.Up:
			state = "no carrier"
		}
		queues, rings := "-", "-"
		if i.RxQueues > 0 {
			queues = strconv.Itoa(i.RxQueues)
		}
		if i.RxRing > 0 || i.TxRing > 0 {
			rings = fmt.Sprintf("%d/%d", i.RxRing, i.TxRing)
		}
		t.row(i.Name, i.Role, state, i.MTU, i.XDPMode, yesNo(i.TCX), queues, rings, i.RxPackets, i.TxPackets, joined(i.Addresses))
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, i := range list {
		if i.XDPWhy != "" {
			fmt.Fprintf(c.out, "%s: XDP is %s, not native: %s\n", i.Name, orDash(i.XDPMode), i.XDPWhy)
		}
	}
	return nil
}

func printReasons(c *cli, list []api.Reason) error {
	t := c.table("INTERFACE", "HOOK", "REASON", "FATE", "PACKETS", "BYTES", "MEANING")
	for _, r := range list {
		t.row(r.Interface, r.Hook, r.Reason, r.Fate, r.Packets, r.Bytes, r.Text)
	}
	return t.print()
}

func printSets(c *cli, list []api.Set) error {
	t := c.table("SET", "PREFIXES", "IPV4", "IPV6", "WATCHED", "CHANGED", "FILES")
	for _, s := range list {
		changed := "-"
		if s.LastChange != nil {
			changed = c.since(*s.LastChange) + " ago"
		}
		t.row(s.Name, s.Prefixes, s.IPv4, s.IPv6, yesNo(s.Watched), changed, orDash(strings.Join(s.Files, " ")))
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, s := range list {
		if s.LastError != "" {
			fmt.Fprintf(c.out, "%s: what was good before goes on, since %s: %s\n", s.Name, c.since(*s.LastErrorAt), s.LastError)
		}
	}
	return nil
}

// since is for a person. A clock that was set back has not come to t yet, and nobody knows how long ago that was.
func (c *cli) since(t time.Time) string {
	age := c.now().Sub(t).Round(time.Second)
	if age < 0 {
		return "an unknown time"
	}
	return age.String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short cuts a digest to what tells two apart.
func short(digest string) string {
	if digest == "" {
		return "none"
	}
	return digest[:min(12, len(digest))]
}
