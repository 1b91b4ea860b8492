package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) showTunnelsCmd(short string) *cobra.Command {
	return &cobra.Command{
		Use:   "tunnels [NAME]",
		Short: short,
		Long: `One line for each peer; with a name, everything about that tunnel. A peer is up, down (its probes fail, or there is no session),
connecting (something was sent, and no answer came yet), or unknown: nobody probes it, and nothing was sent to it for a while. Give the tunnel
health.probe to know. Behind the tunnels come the kernel's IPsec error counters that are not 0; -o json has them all.`,
		Example: "  sluice show tunnels\n  sluice show tunnels fra1\n  sluice show tunnels -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := api.Show[api.Tunnels](cmd.Context(), c.client(), "tunnels")
			if err != nil {
				return err
			}
			if len(args) == 1 {
				all.Tunnels = slices.DeleteFunc(all.Tunnels, func(t api.Tunnel) bool { return t.Name != args[0] })
				if len(all.Tunnels) == 0 {
					return fmt.Errorf("there is no tunnel %q; `sluice show tunnels` lists them", args[0])
				}
			}
			switch {
			case c.json():
				return c.printJSON(all)
			case len(args) == 1:
				return c.printTunnel(all.Tunnels[0], all.XFRM)
			}
			return printTunnels(c, all)
		},
	}
}

func printTunnels(c *cli, all api.Tunnels) error {
	t := c.table("TUNNEL", "TYPE", "MTU", "PEER", "STATE", "ENDPOINT", "HEARD", "LOSS", "RTT", "RX", "TX", "ROUTES")
	var notes []string
	for _, tun := range all.Tunnels {
		kind := typeText(tun)
		if tun.Why != "" {
			notes = append(notes, tun.Name+": "+tun.Why)
		}
		if x := tun.Certificate; x != nil && x.Why != "" {
			notes = append(notes, tun.Name+": "+x.Why)
		}
		if len(tun.Peers) == 0 {
			t.row(tun.Name, kind, tun.MTU, "", "", "", "", "", "", "", "", "")
		}
		for _, p := range tun.Peers {
			loss, rtt := "-", "-"
			if b := p.Probe; b != nil && b.Sent > 0 {
				loss, rtt = lossText(*b), rttText(b.MedianRTT)
			}
			t.row(tun.Name, kind, tun.MTU, p.Name, p.State, p.Endpoint, c.ago(heard(p), "never"), loss, rtt, bytesText(int64(p.RxBytes)), bytesText(int64(p.TxBytes)), p.Routes)
			if note := p.Why + p.Note; note != "" && tun.Running { // the one or the other
				notes = append(notes, fmt.Sprintf("%s, peer %s: %s", tun.Name, p.Name, note))
			}
		}
	}
	if err := t.print(); err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(c.out, note)
	}
	for _, w := range all.Warnings {
		fmt.Fprintln(c.out, "warning: "+w)
	}
	c.printXFRM(all.XFRM)
	return nil
}

// tunnelsText counts the peers of all tunnels in one line, and says of some that are not up why.
func tunnelsText(n api.TunnelCount) string {
	text := fmt.Sprintf("%d up, %d down", n.Up, n.Down)
	for _, more := range []struct {
		n     int
		state api.PeerState
	}{{n.Connecting, api.PeerConnecting}, {n.Unknown, api.PeerUnknown}} {
		if more.n > 0 {
			text += fmt.Sprintf(", %d %s", more.n, more.state)
		}
	}
	var troubles []string
	for _, t := range n.Troubles {
		troubles = append(troubles, fmt.Sprintf("%s %s%s", t.Tunnel, t.Peer, prefixed(" ", t.Why)))
	}
	if more := n.Down + n.Connecting - len(troubles); more > 0 && len(troubles) > 0 {
		troubles = append(troubles, fmt.Sprintf("and %d more", more))
	}
	return text + prefixed(": ", strings.Join(troubles, "; "))
}

func typeText(t api.Tunnel) string {
	return t.Type + prefixed("/", t.Backend)
}

// heard is the last sign of a peer.
func heard(p api.TunnelPeer) time.Time {
	if p.LastHandshake.After(p.LastHeard) {
		return p.LastHandshake
	}
	return p.LastHeard
}

func (c *cli) ago(t time.Time, never string) string {
	if t.IsZero() {
		return never
	}
	return c.since(t) + " ago"
}

func lossText(b api.TunnelProbe) string {
	return strings.TrimSuffix(strconv.FormatFloat(100*float64(b.Lost)/float64(b.Sent), 'f', 1, 64), ".0") + "%"
}

func rttText(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return strconv.FormatFloat(1000*seconds, 'f', 2, 64) + " ms"
}

// printXFRM prints the counters that are not 0.
func (c *cli) printXFRM(list []api.XFRMCounter) {
	for _, x := range list {
		if x.Packets > 0 {
			fmt.Fprintf(c.out, "kernel, all IPsec: %d %s%s\n", x.Packets, x.Name, prefixed(": ", x.Text))
		}
	}
}

// printTunnel prints everything about one tunnel.
func (c *cli) printTunnel(t api.Tunnel, xfrm []api.XFRMCounter) error {
	state := "running"
	if !t.Running {
		state = "NOT RUNNING"
	}
	c.line(0, "tunnel", fmt.Sprintf("%s, %s, %s", t.Name, typeText(t), state))
	c.line(0, "why", t.Why)
	c.line(0, "addresses", joined(t.Addresses))
	mtu := strconv.Itoa(t.MTU)
	if t.Underlay > 0 {
		mtu += fmt.Sprintf(" of %d to the endpoints", t.Underlay)
	}
	if t.ClampMSS {
		mtu += ", MSS clamped"
	}
	c.line(0, "mtu", mtu)
	if t.Strict {
		c.line(0, "strict", "yes: no prefix of its peers leaves in clear")
	}
	local := t.Local + prefixed(", id ", t.ID) + prefixed(", encapsulation ", t.Encapsulation)
	if t.InterfaceID != 0 {
		local += fmt.Sprintf(", if_id 0x%08x", t.InterfaceID)
	}
	c.line(0, "local", local)
	if x := t.Certificate; x != nil {
		c.line(0, "certificate", c.certificateText(*x))
	}
	c.line(0, "public key", t.PublicKey)
	c.line(0, "next key", t.StagedPublicKey+prefixed(", staged; when the other ends know it: sluice key rotate ", ifSet(t.StagedPublicKey, t.Name)))
	for _, p := range t.Peers {
		c.printPeer(p)
	}
	if t.Type == "ipsec" {
		c.printXFRM(xfrm)
	}
	return nil
}

func (c *cli) certificateText(x api.TunnelCertificate) string {
	if x.Subject == "" {
		return x.File + prefixed(", NOT TAKEN: ", x.Why)
	}
	return fmt.Sprintf("%s, of %s, until %s%s", x.Subject, x.Issuer, x.NotAfter.UTC().Format("2006-01-02 15:04 MST"), prefixed(": ", x.Why))
}

func (c *cli) printPeer(p api.TunnelPeer) {
	fmt.Fprintf(c.out, "peer %s: %s%s\n", p.Name, p.State, prefixed(", ", p.Why+p.Note))
	endpoint := orDash(p.Endpoint)
	switch {
	case p.Endpoint == "" || len(p.Endpoints) == 1 && p.Endpoints[0] == p.Endpoint:
	case p.EndpointFrom == "":
		endpoint += ", where the peer moved to; the file has " + cmp.Or(strings.Join(p.Endpoints, " "), "none")
	case p.EndpointFrom != p.Endpoint || len(p.Endpoints) > 1:
		endpoint += fmt.Sprintf(", from %s; the file has %s", p.EndpointFrom, strings.Join(p.Endpoints, " "))
	}
	c.line(1, "endpoint", endpoint)
	c.line(1, "moves to", ifSet(p.EndpointNext, p.EndpointNext+", once its next epoch may begin"))
	if len(p.PublicKeys) > 0 {
		c.line(1, "handshake", c.ago(p.LastHandshake, "never"))
	}
	c.line(1, "heard", c.ago(p.LastHeard, "not since the daemon began"))
	c.line(1, "traffic", fmt.Sprintf("received %s, sent %s", bytesText(int64(p.RxBytes)), bytesText(int64(p.TxBytes))))
	if b := p.Probe; b != nil {
		c.line(1, "probe", c.probeText(*b))
	}
	routes := p.Routes
	if p.Metric != 0 {
		routes += fmt.Sprintf(", metric %d", p.Metric)
	}
	c.line(1, "prefixes", orDash(joined(p.Prefixes)))
	c.line(1, "routes", routes)
	c.line(1, "public key", p.PublicKey)
	for _, key := range p.PublicKeys {
		if key != p.PublicKey {
			c.line(1, "other key", key+", not in use")
		}
	}
	if len(p.PublicKeys) > 0 || p.PresharedKeyFile != "" {
		c.line(1, "preshared", cmp.Or(p.PresharedKeyFile, "no key"))
	}
	c.line(1, "id", p.ID)
	if p.SA != nil {
		c.printSA(*p.SA)
	}
}

func (c *cli) probeText(b api.TunnelProbe) string {
	text := b.Target.String()
	if b.Sent == 0 {
		return text + ", none was sent yet"
	}
	text += fmt.Sprintf(", lost %d of the last %s, round trip %s, median %s", b.Lost, plural.Of(b.Sent, "probe", "probes"), rttText(b.RTT), rttText(b.MedianRTT))
	if b.Down && !b.Since.IsZero() {
		text += ", down for " + c.since(b.Since)
	}
	return text
}

func (c *cli) printSA(sa api.TunnelSA) {
	if sa.Epoch != 0 {
		epoch := fmt.Sprintf("%d, the peer's ", sa.Epoch)
		if sa.PeerEpoch == 0 {
			epoch += "not heard yet"
		} else {
			epoch += strconv.FormatUint(sa.PeerEpoch, 10)
		}
		c.line(1, "epoch", epoch)
	}
	spi := "out " + orDash(sa.SPIOut) + ", in " + orDash(strings.Join(sa.SPIIn, " "))
	c.line(1, "spi", spi)
	age := "none sends"
	if !sa.Begun.IsZero() {
		age = c.since(sa.Begun)
	}
	if sa.RekeyIn > 0 {
		age += ", new keys in " + secondsText(sa.RekeyIn)
	}
	c.line(1, "sa age", age)
	bits := "32 bits"
	if sa.ESN {
		bits = "64 bits (ESN)"
	}
	c.line(1, "sequence", fmt.Sprintf("%d of %s, %d left", sa.Sequence, bits, sa.HeadRoom))
	c.line(1, "packets", fmt.Sprintf("received %d, sent %d, forged %d, replayed %d", sa.RxPackets, sa.TxPackets, sa.Forged, sa.Replayed))
}

// line prints what is not empty.
func (c *cli) line(depth int, name, text string) {
	if text != "" {
		fmt.Fprintf(c.out, "%s%-*s  %s\n", strings.Repeat("  ", depth), 12-2*depth, name, text)
	}
}

// ifSet is text where the other one is not empty.
func ifSet(other, text string) string {
	if other == "" {
		return ""
	}
	return text
}
