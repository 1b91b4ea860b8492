package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"sluice/netprobe"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Whether a firewall lets tunnels through is asked of the kernel: its rules are loaded into a network namespace of their own, where a
// packet for each tunnel arrives on an interface of the uplink's name. Nothing of it is seen outside.

// checkTunnelFirewall tries every port by one peer, and says nothing of what is sent out.
func checkTunnelFirewall(ctx context.Context, n TunnelNeeds) []Finding {
	sets, err := firewallRules()
	if err == nil && len(sets) == 0 {
		return one(ok("tunnel-firewall", "there are no rules"))
	}
	var dropped []TunnelPort
	if err == nil {
		dropped, err = tryFirewall(ctx, sets, n)
	}
	if err != nil {
		return one(Finding{"tunnel-firewall", StatusWarn, "cannot tell whether tunnels get through: " + err.Error(),
			"unknown; where they do not, no handshake arrives", "accept the tunnels' UDP ports (ESP: IP protocol 50) in the input chain"})
	}
	var out []Finding
	for _, p := range dropped {
		from, accept := "", "esp"
		if p.Peer.IsValid() {
			from = " from " + p.Peer.String()
		}
		if p.UDP != 0 {
			accept = fmt.Sprintf("udp dport %d", p.UDP)
		}
		out = append(out, Finding{"tunnel-firewall/" + p.Tunnel + "/" + p.String(), StatusMissing,
			fmt.Sprintf("rules of this machine's firewall drop %s%s", p, from), "tunnel " + p.Tunnel + " hears nothing that it has not asked for: it comes up late or never",
			fmt.Sprintf("nft insert rule inet filter input %s accept (in your own table and chain); Sluice never touches such rules", accept)})
	}
	if len(out) == 0 {
		out = one(ok("tunnel-firewall", "it lets the tunnels' packets in"))
	}
	return out
}

// restore is a program that loads rules, and what it reads.
type restore struct {
	command []string
	rules   []byte
}

// firewallRules are those of the calling thread's namespace that stand before a local socket, in the words of their own programs.
func firewallRules() (out []restore, err error) {
	if rules, err := readNFTables(); err == nil && rules.total() > 0 || hasDroppingChain(rules) {
		tables, err := output("nft", "list", "tables")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(tables)) {
			f := strings.Fields(line) // table FAMILY NAME
			if len(f) != 3 || !slices.Contains([]string{"inet", "ip", "ip6"}, f[1]) {
				continue // devices and bridges of others are not in the other namespace
			}
			text, err := output("nft", "list", "table", f[1], f[2])
			if err != nil {
				return nil, err
			}
			out = append(out, restore{[]string{"nft", "-f", "-"}, text})
		}
	}
	for file, program := range map[string]string{"ip_tables_names": "iptables-legacy", "ip6_tables_names": "ip6tables-legacy"} {
		if names, err := os.ReadFile("/proc/thread-self/net/" + file); err != nil || len(names) == 0 {
			continue
		}
		text, err := output(program + "-save")
		if err != nil {
			return nil, err
		}
		out = append(out, restore{[]string{program + "-restore"}, text})
	}
	return out, nil
}

func hasDroppingChain(r ruleset) bool {
	for _, c := range r {
		if c.drops {
			return true
		}
	}
	return false
}

// output runs a program that only reads.
func output(name string, args ...string) ([]byte, error) {
	var said bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w %s", cmd, err, strings.TrimSpace(said.String()))
	}
	return text, nil
}

// tryFirewall returns the ports to which nothing comes any more once the rules are loaded.
func tryFirewall(ctx context.Context, sets []restore, n TunnelNeeds) ([]TunnelPort, error) {
	return netprobe.Try(ctx, func(nl *netlink.Handle) (dropped []TunnelPort, err error) {
		g := &gate{wire: -1}
		defer g.close()
		if err := g.build(nl, n); err != nil {
			return nil, err
		}
		for _, p := range n.Ports {
			if got, err := g.works(ctx, p); err != nil || !got {
				return nil, errors.Join(fmt.Errorf("the trial itself does not work for %s", p), err)
			}
		}
		for _, s := range sets {
			cmd := exec.Command(s.command[0], s.command[1:]...)
			cmd.Stdin = bytes.NewReader(s.rules)
			if said, err := cmd.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("its rules cannot be loaded elsewhere: %s: %w %s", cmd, err, bytes.TrimSpace(said))
			}
		}
		for _, p := range n.Ports {
			got, err := g.passes(p)
			if err != nil {
				return nil, err
			}
			if !got {
				dropped = append(dropped, p)
			}
		}
		return dropped, nil
	})
}

// gate is an uplink in a namespace, and the wire to it.
type gate struct {
	mac  net.HardwareAddr // of the uplink
	wire int              // a packet socket at the far end
	far  int              // interface index
}

func (g *gate) close() {
	if g.wire >= 0 {
		unix.Close(g.wire)
	}
}

func (g *gate) build(nl *netlink.Handle, n TunnelNeeds) error {
	for _, path := range []string{"net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter"} {
		if err := writeSysctl(path, "0"); err != nil {
			return err
		}
	}
	uplink := "eth0"
	if len(n.Uplinks) > 0 {
		uplink = n.Uplinks[0]
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = uplink
	if err := nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "sluice-far"}); err != nil {
		return fmt.Errorf("make a veth: %w", err)
	}
	for _, name := range []string{"lo", uplink, "sluice-far"} {
		l, err := nl.LinkByName(name)
		if err != nil {
			return err
		}
		if err := nl.LinkSetUp(l); err != nil {
			return err
		}
		switch name {
		case uplink:
			g.mac = l.Attrs().HardwareAddr
			for _, p := range n.Ports {
				local, _ := p.ends()
				addr := &netlink.Addr{IPNet: &net.IPNet{IP: local.AsSlice(), Mask: net.CIDRMask(local.BitLen(), local.BitLen())}, Flags: unix.IFA_F_NODAD}
				if err := nl.AddrReplace(l, addr); err != nil {
					return fmt.Errorf("address %s: %w", local, err)
				}
			}
		case "sluice-far":
			g.far = l.Attrs().Index
		}
	}
	var err error
	g.wire, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	return err
}

// ends are the addresses of a packet to a port; where anything goes they are documentation's (RFC 5737, RFC 3849).
func (p TunnelPort) ends() (local, peer netip.Addr) {
	local, peer = p.Local, p.Peer
	if !local.IsValid() {
		local = netip.MustParseAddr("192.0.2.1")
		if peer.Is6() {
			local = netip.MustParseAddr("2001:db8::1")
		}
	}
	if !peer.IsValid() || peer.Is4() != local.Is4() {
		peer = netip.MustParseAddr("203.0.113.1")
		if local.Is6() {
			peer = netip.MustParseAddr("2001:db8:ffff::1")
		}
	}
	return local, peer
}

// works waits until packets to a port pass while there are no rules: the kernel makes the local route of a new IPv6 address later.
func (g *gate) works(ctx context.Context, p TunnelPort) (bool, error) {
	for end := time.Now().Add(10 * time.Second); ; {
		got, err := g.passes(p)
		if got || err != nil || time.Now().After(end) {
			return got, err
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
}

// passes sends packets to a port and says whether one reaches a socket there. What no rule keeps is there at once; a queue of the
// kernel's takes a little longer on a busy machine.
func (g *gate) passes(p TunnelPort) (bool, error) {
	local, peer := p.ends()
	frame, err := g.frame(p.UDP, local, peer)
	if err != nil {
		return false, err
	}
	var in net.PacketConn
	if p.UDP != 0 {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, p.UDP)))
	} else if local.Is4() {
		in, err = net.ListenIP("ip4:50", &net.IPAddr{IP: local.AsSlice()})
	} else {
		in, err = net.ListenIP("ip6:50", &net.IPAddr{IP: local.AsSlice()})
	}
	if err != nil {
		return false, err
	}
	defer in.Close()
	buf := make([]byte, 256)
	for range 5 {
		if err := unix.Sendto(g.wire, frame, 0, &unix.SockaddrLinklayer{Ifindex: g.far}); err != nil {
			return false, err
		}
		if err := in.SetReadDeadline(time.Now().Add(60 * time.Millisecond)); err != nil {
			return false, err
		}
		_, _, err := in.ReadFrom(buf)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return false, err
		}
	}
	return false, nil
}

// frame is an Ethernet frame to the uplink, of UDP from the same port, or of ESP.
func (g *gate) frame(port uint16, local, peer netip.Addr) ([]byte, error) {
	protocol := layers.IPProtocolUDP
	payload := gopacket.Payload("is this let in?")
	if port == 0 {
		protocol = layers.IPProtocolESP
	}
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: g.mac}
	stack := []gopacket.SerializableLayer{eth}
	udp := &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: layers.UDPPort(port)}
	if local.Is4() {
		eth.EthernetType = layers.EthernetTypeIPv4
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: peer.AsSlice(), DstIP: local.AsSlice()}
		_ = udp.SetNetworkLayerForChecksum(ip)
		stack = append(stack, ip)
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: peer.AsSlice(), DstIP: local.AsSlice()}
		_ = udp.SetNetworkLayerForChecksum(ip)
		stack = append(stack, ip)
	}
	if port != 0 {
		stack = append(stack, udp)
	}
	buffer := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append(stack, payload)...)
	return buffer.Bytes(), err
}

// uplinksTowards puts the uplink first by which a peer is reached: interfaces in rules are those by which packets come.
func uplinksTowards(ctx context.Context, n TunnelNeeds) []string {
	for _, p := range n.Ports {
		if !p.Peer.IsValid() || ctx.Err() != nil {
			continue
		}
		routes, err := netlink.RouteGet(p.Peer.AsSlice())
		if err != nil || len(routes) == 0 {
			continue
		}
		l, err := netlink.LinkByIndex(routes[0].LinkIndex)
		if err != nil || !slices.Contains(n.Uplinks, l.Attrs().Name) {
			continue
		}
		return append([]string{l.Attrs().Name}, slices.DeleteFunc(slices.Clone(n.Uplinks), func(u string) bool { return u == l.Attrs().Name })...)
	}
	return n.Uplinks
}
