package console

import (
	"fmt"
	"strings"
	"time"

	"sluice/control/api"
	"sluice/plural"
)

// state is what is live.
func (v View) state() []string {
	e := v.Status.Engine
	line := "Configuration  none"
	if e.Revision != 0 {
		line = fmt.Sprintf("Configuration  revision %d", e.Revision)
		if !e.Applied {
			line += ", not fully applied"
		}
	}
	out := []string{line, fmt.Sprintf("Generation     xdp %s, tc %s", short(v.Status.XDPGeneration), short(v.Status.TCGeneration))}
	if p := e.Pending; p != nil {
		base := "nothing"
		if p.Base != 0 {
			base = fmt.Sprintf("revision %d", p.Base)
		}
		left := time.Duration(p.Remaining * float64(time.Second)).Round(time.Second)
		if p.Confirm {
			out = append(out, fmt.Sprintf("Pending        goes back to %s in %s unless confirmed", base, left))
		} else {
			out = append(out, fmt.Sprintf("Pending        goes back to %s if a check fails within %s", base, left))
		}
	}
	if b := v.Status.Boot; b != nil && b.Outcome != "rejected" {
		out = append(out, "Booted with    "+b.Text())
	}
	return out
}

func short(digest string) string {
	if digest == "" {
		return "none"
	}
	return digest[:min(8, len(digest))]
}

func linkText(i api.Interface) string {
	switch {
	case i.Index == 0:
		return "missing"
	case !i.Up:
		return "down"
	case !i.Carrier && i.Name != "lo":
		return "no carrier"
	}
	return "up"
}

// untold takes the place of a table.
func untold(what string, why error) list {
	return list{lines: []string{fmt.Sprintf("%-14s not told: %v", what, why)}}
}

func (v View) interfaces() list {
	if v.Untold.Interfaces != nil {
		return untold("Interfaces", v.Untold.Interfaces)
	}
	if len(v.Interfaces) == 0 {
		return list{}
	}
	out := []string{fmt.Sprintf("%-15s  %-10s  %-10s  %-7s  %s", "INTERFACE", "ROLE", "LINK", "XDP", "ADDRESSES")}
	for _, i := range v.Interfaces {
		var addresses []string
		for _, a := range i.Addresses {
			if !a.Addr().IsLinkLocalUnicast() && !a.Addr().IsLoopback() {
				addresses = append(addresses, a.String())
			}
		}
		out = append(out, fmt.Sprintf("%-15s  %-10s  %-10s  %-7s  %s", i.Name, dash(i.Role), linkText(i), dash(i.XDPMode), strings.Join(addresses, " ")))
	}
	return list{out, fmt.Sprintf("Interfaces     %d", len(v.Interfaces))}
}

func (v View) neighbors() list {
	if v.Untold.Neighbors != nil {
		return untold("BGP", v.Untold.Neighbors)
	}
	if len(v.Neighbors) == 0 {
		return list{}
	}
	out := []string{fmt.Sprintf("%-15s  %-22s  %-10s  %-12s  %s", "BGP NEIGHBOR", "ADDRESS", "ASN", "STATE", "SINCE")}
	for _, n := range v.Neighbors {
		since := "-"
		if n.State == "established" {
			since = upText(time.Duration(n.UptimeSeconds) * time.Second)
		}
		out = append(out, fmt.Sprintf("%-15s  %-22s  %-10d  %-12s  %s", n.Name, n.Address, n.ASN, n.State, since))
	}
	return list{out, fmt.Sprintf("BGP            %d of %s established", v.Status.Established, plural.Of(v.Status.Neighbors, "neighbor", "neighbors"))}
}

func (v View) tunnels() list {
	if v.Untold.Tunnels != nil {
		return untold("Tunnels", v.Untold.Tunnels)
	}
	if len(v.Tunnels) == 0 {
		return list{}
	}
	out := []string{fmt.Sprintf("%-15s  %-10s  %-15s  %-12s  %s", "TUNNEL", "TYPE", "PEER", "STATE", "ENDPOINT")}
	for _, t := range v.Tunnels {
		for _, p := range t.Peers {
			out = append(out, fmt.Sprintf("%-15s  %-10s  %-15s  %-12s  %s", t.Name, t.Type, p.Name, p.State, p.Endpoint))
		}
	}
	text := "Tunnels        " + plural.Of(len(v.Tunnels), "tunnel", "tunnels")
	if t := v.Status.Tunnels; t != nil {
		text += fmt.Sprintf(", peers: %d up, %d down, %d connecting, %d unknown", t.Up, t.Down, t.Connecting, t.Unknown)
	}
	return list{out, text}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
