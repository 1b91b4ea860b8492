package main

import (
	"fmt"
	"time"

	"sluice/control/api"
)

func printBGP(c *cli, list []api.Neighbor) error {
	t := c.table("NEIGHBOR", "ADDRESS", "ASN", "STATE", "UPTIME", "FAMILY", "RECEIVED", "ACCEPTED", "ADVERTISED")
	for _, n := range list {
		up := "-"
		if n.UptimeSeconds > 0 {
			up = (time.Duration(n.UptimeSeconds) * time.Second).String()
		}
		if len(n.Families) == 0 {
			t.row(n.Name, n.Address, n.ASN, n.State, up, "", "", "", "")
		}
		for _, f := range n.Families {
			t.row(n.Name, n.Address, n.ASN, n.State, up, f.Family, f.Received, f.Accepted, f.Advertised)
		}
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, n := range list {
		if n.State != "established" && n.LastError != "" {
			fmt.Fprintf(c.out, "%s: %s\n", n.Name, n.LastError)
		}
	}
	return nil
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

func printTunnels(c *cli, list []api.Tunnel) error {
	t := c.table("TUNNEL", "BACKEND", "STATE", "MTU", "PEER", "ENDPOINT", "HANDSHAKE", "RX", "TX", "PREFIXES")
	for _, tun := range list {
		state := "down"
		if tun.Running {
			state = "running"
		}
		if len(tun.Peers) == 0 {
			t.row(tun.Name, tun.Backend, state, tun.MTU, "", "", "", "", "", "")
		}
		for _, p := range tun.Peers {
			handshake := "never"
			if !p.LastHandshake.IsZero() {
				handshake = c.since(p.LastHandshake) + " ago"
			}
			t.row(tun.Name, tun.Backend, state, tun.MTU, p.Name, p.Endpoint, handshake, bytesText(p.RxBytes), bytesText(p.TxBytes),
				joined(p.AllowedIPs))
		}
	}
	return t.print()
}

func printSockets(c *cli, list []api.Socket) error {
	t := c.table("SOCKET", "INTERFACE", "NO FRAME", "RING FULL", "WRONG PLACE", "OTHER", "REGISTER AT")
	for _, s := range list {
		if !s.Counted {
			t.row(s.Name, s.Interface, "?", "?", "?", "?", s.Path)
			continue
		}
		t.row(s.Name, s.Interface, s.Lost.NoFrame, s.Lost.RingFull, s.Lost.WrongPlace, s.Lost.Other, s.Path)
	}
	return t.print()
}
