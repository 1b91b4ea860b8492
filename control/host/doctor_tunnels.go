package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// TunnelNeeds are what the tunnels of a file want of the machine, beside the kernel parts that their subsystems try.
type TunnelNeeds struct {
	Ports   []TunnelPort
	Links   []string       // the tunnels' devices; one that is not there yet gets the default's settings
	Uplinks []string       // what encrypted packets come in by
	Inside  []netip.Prefix // what lies behind peers
	NotYet  time.Time      // a clock before it is not set
}

// TunnelPort is where a tunnel is sent encrypted packets.
type TunnelPort struct {
	Tunnel  string
	UDP     uint16     // 0: ESP as it is, IP protocol 50
	Local   netip.Addr // invalid: any
	Peer    netip.Addr // whose packets may come; invalid: anybody's
	Holders []string   // beginnings of the names of programs that may hold the port
	Command []string   // words that follow each other in the command line of Sluice's own process that may; nil: it has none
	Kernel  bool       // the kernel itself may, as it does for its WireGuard devices
}

func (p TunnelPort) String() string {
	if p.UDP == 0 {
		return "esp"
	}
	return fmt.Sprintf("udp-%d", p.UDP)
}

// checkTunnels judges what tunnels need of the machine.
func checkTunnels(ctx context.Context, n TunnelNeeds) []Finding {
	out := append(checkPorts(n.Ports), checkReversePath(n), checkClock(n.NotYet))
	out = append(out, checkForeignRoutes(n.Inside)...)
	return append(out, checkTunnelFirewall(ctx, n)...)
}

// udpSocket is one line of /proc/net/udp. Nobody's inode is the kernel's own socket, or that of a process that we do not see.
type udpSocket struct {
	addr  netip.Addr
	port  uint16
	inode string
}

// udpSockets are those of the calling thread's namespace, of both families. Addresses there are words of the machine's byte order,
// which is little endian on all that Sluice runs on.
func udpSockets() (out []udpSocket, err error) {
	for _, file := range []string{"udp", "udp6"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) < 10 {
				continue
			}
			host, port, ok := strings.Cut(f[1], ":")
			number, err := strconv.ParseUint(port, 16, 16)
			addr, good := hexAddr(host)
			if ok && err == nil && good {
				out = append(out, udpSocket{addr, uint16(number), f[9]})
			}
		}
	}
	return out, nil
}

func hexAddr(text string) (netip.Addr, bool) {
	if len(text) != 8 && len(text) != 32 {
		return netip.Addr{}, false
	}
	var b []byte
	for ; len(text) > 0; text = text[8:] {
		word, err := strconv.ParseUint(text[:8], 16, 32)
		if err != nil {
			return netip.Addr{}, false
		}
		b = append(b, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	a, ok := netip.AddrFromSlice(b)
	return a, ok
}

// holder is a process that has a socket open.
type holder struct {
	name    string // as the kernel has it: up to 15 bytes
	pid     string
	command []string
}

func (h holder) String() string { return fmt.Sprintf("%s (pid %s)", h.name, h.pid) }

// holders are the processes that have open sockets, by inode.
func holders() map[string][]holder {
	out := map[string][]holder{}
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, file := range files {
		target, err := os.Readlink(file)
		inode, ok := strings.CutPrefix(target, "socket:[")
		if err != nil || !ok {
			continue
		}
		dir := filepath.Dir(filepath.Dir(file))
		name, err := os.ReadFile(dir + "/comm")
		if err != nil {
			continue
		}
		command, _ := os.ReadFile(dir + "/cmdline")
		inode = strings.TrimSuffix(inode, "]")
		out[inode] = append(out[inode], holder{strings.TrimSpace(string(name)), filepath.Base(dir), strings.Split(string(command), "\x00")})
	}
	return out
}

// mayHold says whether a port is a process's to hold.
func (p TunnelPort) mayHold(h holder) bool {
	if slices.ContainsFunc(p.Holders, func(name string) bool { return strings.HasPrefix(h.name, name) }) {
		return true
	}
	n := len(p.Command)
	for at := 0; n > 0 && at+n <= len(h.command); at++ {
		if slices.Equal(h.command[at:at+n], p.Command) {
			return true
		}
	}
	return false
}

// checkPorts says who holds the UDP ports of tunnels, where that is not who should.
func checkPorts(ports []TunnelPort) []Finding {
	sockets, err := udpSockets()
	if err != nil {
		return one(Finding{"tunnel-ports", StatusWarn, "cannot tell: " + err.Error(), "unknown", "see that /proc is mounted, and run as root"})
	}
	var out []Finding
	var open map[string][]holder
	for _, p := range ports {
		name := "tunnel-port/" + p.Tunnel + "/" + p.String()
		if p.UDP == 0 || slices.ContainsFunc(out, func(f Finding) bool { return f.Name == name }) {
			continue
		}
		f := ok(name, "nobody else holds it")
		for _, s := range sockets {
			if s.port != p.UDP || p.Local.IsValid() && s.addr != p.Local && !s.addr.IsUnspecified() {
				continue
			}
			if open == nil {
				open = holders()
			}
			by := open[s.inode]
			if len(by) == 0 && p.Kernel || slices.ContainsFunc(by, p.mayHold) {
				continue
			}
			who := "the kernel (another tunnel device), or a process of another container"
			if len(by) > 0 {
				who = by[0].String()
			}
			f = Finding{name, StatusMissing, fmt.Sprintf("%s holds UDP %s", who, netip.AddrPortFrom(s.addr, s.port)),
				"tunnel " + p.Tunnel + " does not receive there: apply fails, or what arrives goes to the other",
				"end it (`ss -ulpn` lists such sockets), or give the tunnel another local.port where it may have one"}
			break
		}
		out = append(out, f)
	}
	return out
}

// checkReversePath looks for strict checks of sources. The kernel takes the larger of all's and the link's value.
func checkReversePath(n TunnelNeeds) Finding {
	value := func(name string) string {
		text, err := readSysctl("net/ipv4/conf/" + name + "/rp_filter")
		if err != nil {
			text, _ = readSysctl("net/ipv4/conf/default/rp_filter")
		}
		return text
	}
	all := value("all")
	var strict []string
	for _, name := range append(slices.Clone(n.Links), n.Uplinks...) {
		if v := max(value(name), all); v == "1" {
			strict = append(strict, name)
		}
	}
	if len(strict) == 0 {
		return ok("rp_filter", "no strict check of sources on tunnels and uplinks")
	}
	fix := "write it under sysctls: in the file, such as {key: net.ipv4.conf." + strict[0] + `.rp_filter, value: "2"}`
	if all == "1" {
		fix = `net.ipv4.conf.all.rp_filter is 1, and no interface can have less: write it as "0" under sysctls: in the file`
	}
	return Finding{"rp_filter", StatusWarn, "strict (1) on " + strings.Join(strict, ", "),
		"what comes by another way than answers take is dropped without a trace: by a backup tunnel, from a peer that roams, by a second uplink", fix}
}

// checkClock: epochs of static keys and WireGuard's handshakes are numbered by time, and certificates and logs go by it.
func checkClock(notYet time.Time) Finding {
	const fix = "start a time service (chrony, systemd-timesyncd), with `node.ntp` as its servers"
	f := ok("clock", "set and kept by a time service")
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	now := time.Now().UTC().Format(time.DateTime)
	switch {
	case time.Now().Before(notYet):
		f = Finding{f.Name, StatusMissing, "it is not set: it says " + now,
			"IPsec with static keys does not begin, and WireGuard's peers refuse handshakes older than the last they saw", fix}
	case err != nil:
		f = Finding{f.Name, StatusWarn, fmt.Sprintf("it says %s; who keeps it cannot be told: %v", now, err), "unknown", fix}
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		f = Finding{f.Name, StatusWarn, "no time service keeps it; it says " + now,
			"set back at a restart, WireGuard's peers refuse our handshakes until it is past the last one again", fix}
	}
	return f
}

// charonTable is where charon puts routes (charon.routing_table), and the priority of the rule that leads there, which
// is before any of ours.
const charonTable = 220

// checkForeignRoutes looks for routes that other connections of charon have put before ours.
func checkForeignRoutes(inside []netip.Prefix) []Finding {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return one(Finding{"charon-routes", StatusWarn, "cannot tell: " + err.Error(), "unknown", "run as root"})
	}
	defer nl.Close()
	var out []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netdump.Routes(nl, family, &netlink.Route{Table: charonTable}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return one(Finding{"charon-routes", StatusWarn, "cannot tell: " + err.Error(), "unknown", "run as root"})
		}
		for _, r := range routes {
			dst, good := netip.AddrFromSlice(r.Dst.IP)
			if !good {
				continue
			}
			bits, _ := r.Dst.Mask.Size()
			p := netip.PrefixFrom(dst, bits)
			if slices.ContainsFunc(inside, p.Overlaps) {
				out = append(out, p.String())
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	slices.Sort(out)
	return one(Finding{"charon-routes", StatusWarn, fmt.Sprintf("table %d has routes for what lies behind our peers: %s", charonTable, strings.Join(out, " ")),
		"they come before Sluice's: such packets do not go into its tunnels",
		"they are of connections that charon has of its own (swanctl.conf, ipsec.conf): take those out, or set charon.install_routes = no"})
}
