package netns

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
)

// way is from one host to another by the gateway.
type way struct {
	name     string
	from, to *lab.Namespace
	server4  netip.Addr
	server6  netip.Addr
	host     string   // what the server at the other end calls itself; "": none is there
	want     []string // the counters of the way and of the way back
	may      []string // those of the stack that may count
	ingress  string   // the link of the gateway where the way begins
}

func (w way) servers() []netip.Addr { return []netip.Addr{w.server4, w.server6} }

// ways are all that the site has. A tunnel has no Ethernet header to redirect with, so what comes out of it takes the stack.
func (p *pathSite) ways() []way {
	out := []way{
		{"uplink to workload", p.Client, p.Workload(1), lab.Web4[0], lab.Web6[0], "web-1",
			[]string{"tc eth0 delivered", "tc web-1 forwarded", "tc eth0 judged"}, nil, "eth0"},
		{"workload to uplink", p.Workload(1), p.Client, lab.Client4, lab.Client6, "client",
			[]string{"tc web-1 forwarded", "tc eth0 judged", "tc eth0 delivered"}, nil, "web-1"},
		{"workload to workload", p.Workload(1), p.Workload(2), lab.Web4[1], lab.Web6[1], "web-2",
			[]string{"tc web-1 delivered", "tc web-2 delivered"}, nil, "web-1"},
		{"workload to LAN", p.Workload(2), p.lan, lanHost4, lanHost6, "",
			[]string{"tc web-2 forwarded", "tc lan0 judged", "tc lan0 delivered"}, nil, "web-2"},
		{"LAN to workload", p.lan, p.Workload(2), lab.Web4[1], lab.Web6[1], "web-2",
			[]string{"tc lan0 delivered", "tc web-2 forwarded", "tc lan0 judged"}, nil, "lan0"},
	}
	if p.Peer.Daemon() != nil {
		out = append(out, way{"workload to tunnel", p.Workload(1), p.Peer.Namespace, lab.Inner4, lab.Inner6, "peer",
			[]string{"tc web-1 forwarded", "tc fra1 judged", "tc fra1 stack-l3", "tc web-1 judged"}, []string{"tc fra1 stack-l3"}, "web-1"})
	}
	return out
}

func TestEveryWayThroughTheGatewayIsRedirected(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		t.Run(fmt.Sprintf("MTU %d", mtu), func(t *testing.T) {
			t.Parallel()
			p := newPath(t, pathOptions{mtu: mtu, tunnel: true})
			p.startIperfServers()
			for _, gso := range []string{"on", "off"} {
				p.setGSO(gso)
				for _, w := range p.ways() {
					for _, server := range w.servers() {
						p.goes(w, server, mtu, gso)
					}
				}
			}
		})
	}
}

// goes sends every kind of traffic along a way.
func (p *pathSite) goes(w way, server netip.Addr, mtu int, gso string) {
	p.t.Helper()
	what := fmt.Sprintf("%s, %s, MTU %d, GSO %s", w.name, server, mtu, gso)
	p.redirects(what+", ping", func() {
		for _, flags := range [][]string{{"-c3", "-i0.01"}, {"-Mdo", "-s" + fmt.Sprint(room(w, server, mtu))}} {
			if err := p.reaches(w.from, server, flags...); err != nil {
				p.t.Errorf("%s: %v", what, err)
			}
		}
	}, w.want, w.may...)
	if w.host != "" {
		p.redirects(what+", HTTP", func() {
			out := p.must(w.from, "curl -sS -m5 http://"+netip.AddrPortFrom(server, 80).String()+"/x")
			if out != w.host+" /x\n" {
				p.t.Errorf("%s: curl got %q", what, out)
			}
		}, w.want, w.may...)
	}
	// A segment is larger than a packet exactly where GSO is on; not always on a busy machine, where a sender that waits for each
	// acknowledgement has no more to send at once. What XDP has seen is in packets, and joined again by GRO or not.
	key := "tc " + w.ingress + " " + strings.Fields(w.want[0])[2]
	for try := 1; ; try++ {
		n := p.redirects(what+", iperf3 TCP", func() { p.iperf(what, w.from, server, "-n", "6M") }, w.want, w.may...)
		mean := n.bytes[key] / max(n.packets[key], 1)
		if w.ingress == "eth0" || (gso == "on") == (mean > uint64(mtu)+14) {
			break
		}
		if gso == "off" || try == 10 {
			p.t.Errorf("%s: packets of %s had %d bytes in the mean", what, key, mean)
			break
		}
	}
	p.redirects(what+", iperf3 UDP", func() { p.iperf(what, w.from, server, "-u", "-b", "50M", "-n", "2M") }, w.want, w.may...)
}

// room is the largest echo that fits in one packet.
func room(w way, server netip.Addr, mtu int) int {
	if strings.Contains(w.name, "tunnel") {
		mtu -= 60 // WireGuard over IPv4
	}
	if server.Is6() {
		return mtu - 48
	}
	return mtu - 28
}

// setGSO switches segmentation and its reverse on or off at every link of a host.
func (p *pathSite) setGSO(mode string) {
	p.t.Helper()
	for _, ns := range []*lab.Namespace{p.Client, p.lan, p.ToR, p.Workload(1), p.Workload(2), p.Gateway.Namespace} {
		for line := range strings.Lines(p.must(ns, "ip -o link show type veth")) {
			name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
			p.must(ns, fmt.Sprintf("ethtool -K %s gso %[2]s tso %[2]s gro %[2]s", name, mode))
		}
	}
}

// startIperfServers starts one at every address that a way leads to: one for all addresses would answer datagrams from whichever
// address the host likes.
func (p *pathSite) startIperfServers() {
	p.t.Helper()
	started := map[netip.Addr]bool{}
	for _, w := range p.ways() {
		for _, server := range w.servers() {
			if started[server] {
				continue
			}
			started[server] = true
			p.startIperfServer(w.to, server, 5201)
		}
	}
}

func (p *pathSite) startIperfServer(ns *lab.Namespace, at netip.Addr, port uint16) {
	p.t.Helper()
	if _, err := ns.Command(fmt.Sprintf("iperf3-%s-%d", at, port), "iperf3", "-s", "-B", at.String(), "-p", fmt.Sprint(port)); err != nil {
		p.t.Fatalf("iperf3 (package iperf3): %v", err)
	}
	eventually(p.t, func() error {
		if !strings.Contains(p.must(ns, "ss -Hltn"), netip.AddrPortFrom(at, port).String()+" ") {
			return fmt.Errorf("iperf3 does not listen at %s", at)
		}
		return nil
	})
}

// ran is the part of iperf3's report that is asked about. Of what was received, both directions have a sum.
type ran struct {
	Error string `json:"error"`
	Start struct {
		Connected []json.RawMessage `json:"connected"` // the connections that carry the test
	} `json:"start"`
	End struct {
		Received struct {
			Bytes uint64 `json:"bytes"`
		} `json:"sum_received"`
		Reverse struct {
			Bytes uint64 `json:"bytes"`
		} `json:"sum_received_bidir_reverse"`
	} `json:"end"`
}

// notBegun are errors of iperf3 that may come before a test, and in its midst, where they are the test's matter.
var notBegun = regexp.MustCompile("unable to connect|refused|reset|control socket|control message")

// iperf runs one test, in both directions at once. The server takes one at a time, and is not always done with the last.
func (p *pathSite) iperf(what string, from *lab.Namespace, server netip.Addr, args ...string) {
	p.t.Helper()
	args = append([]string{"-J", "--bidir", "--connect-timeout", "10000", "-c", server.String()}, args...)
	deadline := time.Now().Add(patience)
	for {
		r := p.in(from, "iperf3", args...)
		var report ran
		err := json.Unmarshal([]byte(r.out), &report)
		again := strings.Contains(report.Error, "busy") || len(report.Start.Connected) == 0 && notBegun.MatchString(report.Error)
		if err == nil && again && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil || report.Error != "" {
			p.t.Errorf("%s: iperf3 %v: %v %s %s", what, args, err, report.Error, r.err)
			return
		}
		if report.End.Received.Bytes == 0 || report.End.Reverse.Bytes == 0 {
			p.t.Errorf("%s: iperf3 %v received %+v", what, args, report.End)
		}
		return
	}
}
