package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/crypto/ike"
	"sluice/crypto/ipsec"
	"sluice/crypto/wireguard"
	"sluice/crypto/wireguard/child"
)

// ikePorts are those of IKE, and of IKE and ESP behind a NAT (RFC 3947).
var ikePorts = []uint16{500, 4500}

// tunnelNeeds are what the tunnels of a file want of the machine; nil: it has none.
func tunnelNeeds(cfg *config.Config) *host.TunnelNeeds {
	if cfg == nil || len(cfg.Tunnels) == 0 {
		return nil
	}
	n := &host.TunnelNeeds{NotYet: ipsec.Built()}
	for _, i := range cfg.Interfaces {
		if i.Role == config.RoleUplink {
			n.Uplinks = append(n.Uplinks, i.Name)
		}
	}
	for _, t := range cfg.Tunnels {
		n.Links = append(n.Links, t.Name)
		for _, p := range t.Peers {
			n.Inside = append(n.Inside, p.Prefixes...)
		}
		n.Ports = append(n.Ports, portsOf(t)...)
	}
	return n
}

// portsOf are where a tunnel is sent encrypted packets: one peer stands for all, since rules know addresses mostly.
func portsOf(t config.Tunnel) (out []host.TunnelPort) {
	p := host.TunnelPort{Tunnel: t.Name, Local: t.Local.Addr(), Peer: firstEndpoint(t)}
	if t.Type == config.TypeWireGuard {
		p.UDP, p.Command = t.Local.Port(), []string{child.Verb, t.Name}
		// Its own device holds the port, once there is one.
		_, err := os.Stat("/sys/class/net/" + t.Name)
		p.Kernel = err == nil
		return []host.TunnelPort{p}
	}
	if t.IPsec.Encapsulation != config.EncapsulationUDP {
		out = append(out, p) // ESP as it is
	}
	switch {
	case t.IPsec.Keying == config.KeyingIKE:
		for _, port := range ikePorts {
			p.UDP, p.Holders = port, []string{"charon"}
			out = append(out, p)
		}
	case t.IPsec.Encapsulation == config.EncapsulationUDP:
		p.UDP, p.Command = t.Local.Port(), []string{ipsec.HolderVerb}
		if p.UDP == 0 {
			p.UDP = ipsec.DefaultPort
		}
		out = append(out, p)
	}
	return out
}

func firstEndpoint(t config.Tunnel) netip.Addr {
	for _, p := range t.Peers {
		for _, e := range p.Endpoints {
			if e.Addr.IsValid() {
				return e.Addr
			}
		}
	}
	return netip.Addr{}
}

// tunnelFindings are about the kernel parts and programs that the tunnels of a file run on; none without tunnels.
func tunnelFindings(ctx context.Context, cfg *config.Config) (out []host.Finding) {
	if cfg == nil {
		return nil
	}
	of := func(fits func(t config.Tunnel) bool) (names []string) {
		for _, t := range cfg.Tunnels {
			if fits(t) {
				names = append(names, t.Name)
			}
		}
		return names
	}
	if wg := of(func(t config.Tunnel) bool { return t.Type == config.TypeWireGuard }); len(wg) > 0 {
		c, err := wireguard.Probe(ctx)
		if err != nil {
			out = append(out, host.Finding{Name: "wireguard", Status: host.StatusWarn, Detail: "cannot tell: " + err.Error(), Cost: "unknown", Fix: "run as root"})
		} else {
			demanded := of(func(t config.Tunnel) bool { return t.Backend == "kernel" })
			userspace := of(func(t config.Tunnel) bool {
				return t.Backend == "userspace" || t.Type == config.TypeWireGuard && t.Backend != "kernel" && c.Kernel != nil
			})
			out = append(out, judgeWireGuard(c, demanded, userspace)...)
		}
	}
	if esp := of(func(t config.Tunnel) bool { return t.Type == config.TypeIPsec }); len(esp) > 0 {
		missing, err := ipsec.Missing(ctx)
		_, counted := ipsec.Statistics()
		out = append(out, judgeESP(missing, err, counted)...)
	}
	var sockets []string
	for _, t := range cfg.Tunnels {
		if t.IPsec != nil && t.IPsec.Keying == config.KeyingIKE && !slices.Contains(sockets, t.IPsec.Charon) {
			sockets = append(sockets, t.IPsec.Charon)
		}
	}
	for _, socket := range sockets {
		about, err := ike.AskAbout(ctx, socket)
		out = append(out, judgeCharon(socket, about, err)...)
	}
	return out
}

// withoutModule are the tunnels that want the kernel's WireGuard where it has none. Who may not try is told nothing.
func withoutModule(ctx context.Context, cfg *config.Config) (names []string, err error) {
	for _, t := range cfg.Tunnels {
		if t.Backend == "kernel" {
			names = append(names, "tunnel "+t.Name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	switch yes, err := wireguard.KernelSupported(ctx); {
	case errors.Is(err, unix.EPERM):
		return nil, nil
	case err != nil || yes:
		return nil, err
	}
	return names, nil
}

// judgeWireGuard: demanded are the tunnels that want the kernel's device and no other, userspace those that get the other one.
func judgeWireGuard(c wireguard.Capabilities, demanded, userspace []string) (out []host.Finding) {
	const module = "install the kernel's wireguard module (CONFIG_WIREGUARD); a module that is on the disk is loaded by itself"
	switch {
	case c.Kernel == nil:
		out = append(out, fine("wireguard", "the kernel makes such devices"))
	case len(demanded) > 0:
		out = append(out, host.Finding{Name: "wireguard", Status: host.StatusMissing, Detail: "the kernel makes no such device: " + c.Kernel.Error(),
			Cost: "tunnels with backend: kernel do not come up: " + strings.Join(demanded, " "), Fix: module + ", or write backend: auto"})
	default:
		out = append(out, host.Finding{Name: "wireguard", Status: host.StatusWarn, Detail: "the kernel makes no such device: " + c.Kernel.Error(),
			Cost: "tunnels run in the embedded userspace device: less throughput, more CPU", Fix: module})
	}
	switch {
	case c.TUN == nil:
		out = append(out, fine("tun", "/dev/net/tun makes devices"))
	case len(userspace) > 0:
		out = append(out, host.Finding{Name: "tun", Status: host.StatusMissing, Detail: "/dev/net/tun makes no device: " + c.TUN.Error(),
			Cost: "tunnels in userspace do not come up: " + strings.Join(userspace, " "), Fix: "modprobe tun; in a container hand /dev/net/tun down to it"})
	}
	if c.Kernel == nil && c.Plug != nil {
		out = append(out, host.Finding{Name: "sch_plug", Status: host.StatusWarn, Detail: "the kernel has no qdisc plug: " + c.Plug.Error(),
			Cost: "sluice key rotate cannot hold the traffic of a kernel device while its key changes, and refuses to", Fix: "install the kernel's sch_plug module (CONFIG_NET_SCH_PLUG)"})
	} else if c.Kernel == nil {
		out = append(out, fine("sch_plug", "holds traffic while a key changes"))
	}
	return out
}

func fine(name, detail string) host.Finding {
	return host.Finding{Name: name, Status: host.StatusOK, Detail: detail}
}

// judgeESP: missing are modules that the kernel lacks, or err says why that is not known; counted is why there are no counters.
func judgeESP(missing []string, err, counted error) (out []host.Finding) {
	switch {
	case err != nil:
		out = append(out, host.Finding{Name: "esp", Status: host.StatusWarn, Detail: "cannot tell: " + err.Error(), Cost: "unknown", Fix: "run as root"})
	case len(missing) > 0:
		out = append(out, host.Finding{Name: "esp", Status: host.StatusMissing, Detail: "the kernel lacks " + strings.Join(missing, ", "),
			Cost: "tunnels of type ipsec do not come up", Fix: "install these modules (modprobe says what fails), boot a kernel that has them, or use type: wireguard"})
	default:
		out = append(out, fine("esp", "the kernel takes ESP states and policies of both families, and makes xfrm interfaces"))
	}
	switch {
	case counted == nil:
		out = append(out, fine("xfrm-statistics", "the kernel counts why it drops ESP"))
	case errors.Is(counted, fs.ErrNotExist):
		out = append(out, host.Finding{Name: "xfrm-statistics", Status: host.StatusWarn, Detail: "the kernel was built without CONFIG_XFRM_STATISTICS",
			Cost: "`show tunnels` cannot say why ESP is dropped, and with static keys a peer that lost its state is found late or not at all", Fix: "boot a kernel with CONFIG_XFRM_STATISTICS"})
	default:
		out = append(out, host.Finding{Name: "xfrm-statistics", Status: host.StatusWarn, Detail: "cannot tell: " + counted.Error(), Cost: "unknown", Fix: "see that /proc is mounted"})
	}
	return out
}

// judgeCharon: a plugin that does ESP in user space knows no interface ids, so that nothing would come out of our interfaces.
func judgeCharon(socket string, about ike.About, err error) (out []host.Finding) {
	name := "charon" + socket
	if err != nil {
		return []host.Finding{{Name: name, Status: host.StatusMissing, Detail: err.Error(), Cost: "tunnels with keying: ike do not come up, and the keys of those that are up wear out",
			Fix: "install and start strongSwan with its vici plugin (systemctl enable --now strongswan); charon's log says why it does not start"}}
	}
	has := func(plugin string) bool { return slices.Contains(about.Plugins, plugin) }
	switch {
	case has("kernel-libipsec"):
		out = append(out, host.Finding{Name: name, Status: host.StatusMissing, Detail: about.Version + " has loaded kernel-libipsec: ESP in user space",
			Cost: "it knows no interface ids: what it decrypts does not come out of the tunnel's interface, and it puts routes of its own before ours",
			Fix:  "strongswan.d/charon/kernel-libipsec.conf: load = no, then systemctl restart strongswan"})
	case !has("kernel-netlink"):
		out = append(out, host.Finding{Name: name, Status: host.StatusMissing, Detail: about.Version + " has not loaded kernel-netlink",
			Cost: "its keys never reach the kernel", Fix: "strongswan.d/charon/kernel-netlink.conf: load = yes, then systemctl restart strongswan"})
	default:
		out = append(out, fine(name, about.Version+" answers, and gives its keys to the kernel"))
	}
	if n := len(about.Foreign); n > 0 {
		out = append(out, host.Finding{Name: "charon-connections" + socket, Status: host.StatusWarn,
			Detail: fmt.Sprintf("charon has connections that are not Sluice's: %s", strings.Join(about.Foreign[:min(n, 8)], " ")),
			Cost:   "one with a peer of ours may take its sessions, and routes that they install come before ours",
			Fix:    "nothing, where they lead elsewhere; else take them out of swanctl.conf or ipsec.conf"})
	}
	return out
}
