package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// Private addresses of workload 1, to which nobody beyond the gateway has a route.
const (
	private4, private6 = "10.0.1.10", "fd00:1::10"
	gateway4, gateway6 = "198.18.0.2", "2001:db8::2"
)

// hidden is a gateway whose first workload has private addresses and snat: auto, behind policies that drop what nobody asked for.
// From its making to its end somebody looks at the uplink for them.
type hidden struct {
	*site
	leaks *lab.Process
}

const webAddresses = `    addresses: [203.0.113.10, "2001:db8:100::10"]` + "\n"

func newHidden(t *testing.T) *hidden {
	t.Helper()
	h := &hidden{site: newSite(t)}
	for _, words := range []string{
		"ip addr add " + private4 + "/32 dev eth0", "ip addr add " + private6 + "/128 dev eth0 nodad",
		"ip addr del 203.0.113.10/32 dev eth0", "ip addr del 2001:db8:100::10/128 dev eth0",
		"ip route replace default via 169.254.1.1 dev eth0 onlink", "ip -6 route replace default via fe80::1 dev eth0", // they went along
	} {
		h.must(h.Workload(1), words)
	}
	h.edit(webAddresses, "    addresses: ["+private4+`, "`+private6+`"]`+"\n    snat: auto\n",
		"egress: {default: drop, rules: [{name: dns, to: [resolvers], protocol: udp, ports: [53], action: accept}]}\n  - name: web-2", "egress: {default: accept}\n  - name: web-2",
		"    - {workloads: true}\n", "",
		"policy:\n  ingress:\n    default: drop\n", "policy:\n  ingress:\n    default: drop\n    fragments: track\n",
		"      - {name: dns, to: [resolvers], protocol: udp, ports: [53], action: accept}\n\nworkloads",
		"      - {name: icmp, protocol: icmp, action: accept}\n      - {name: icmp6, protocol: icmpv6, action: accept}\n\nworkloads")
	h.leaks = h.sniff("leaks", "src net 10.0.1.0/24 or src net fd00:1::/64 or dst net 10.0.1.0/24 or dst net fd00:1::/64")
	h.start()
	eventually(t, func() error {
		for _, family := range []string{"-4", "-6"} {
			if !strings.Contains(h.must(h.Gateway.Namespace, "ip "+family+" route show default"), "via") {
				return fmt.Errorf("no default route of family %s yet", family)
			}
		}
		return nil
	})
	return h
}

// sniff starts tcpdump at the other end of the uplink.
func (s *site) sniff(name, filter string) *lab.Process {
	s.t.Helper()
	p, err := s.ToR.Command(name, "tcpdump", "-n", "-v", "-l", "-i", "gateway", filter)
	if err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, func() error {
		if said := s.logOf(p); !strings.Contains(string(said), "listening on") {
			return fmt.Errorf("tcpdump has not begun: %q", said)
		}
		return nil
	})
	return p
}

// nothingLeaked fails if a private address was seen on the uplink.
func (h *hidden) nothingLeaked() {
	h.t.Helper()
	if said := string(h.logOf(h.leaks)); strings.Contains(said, " > ") {
		h.t.Errorf("private addresses were seen on the uplink:\n%.2000s", said)
	}
}

// TestAWorkloadHidesBehindItsGateway: all of it by programs that people use.
func TestAWorkloadHidesBehindItsGateway(t *testing.T) {
	t.Parallel()
	h := newHidden(t)
	w := h.Workload(1)
	seen := h.sniff("seen", "src host "+gateway4+" or src host "+gateway6)
	for _, path := range []string{"redirect", "stack"} {
		if path == "stack" {
			h.edit("    snat: auto\n", "    snat: auto\n    path: stack\n")
			h.apply()
		}
		t.Run(path, func(t *testing.T) {
			h.t = t
			h.speaks(w)
		})
		h.t = t
	}
	if said := string(h.logOf(seen)); strings.Count(said, " > ") < 20 {
		t.Errorf("the control saw next to nothing:\n%s", said)
	}
	h.nothingLeaked()
}

func (h *hidden) speaks(w *lab.Namespace) {
	for from, want := range map[string]string{"tcp " + private4 + ":9 > " + lab.Client4.String() + ":80": gateway4,
		"tcp [" + private6 + "]:9 > [" + lab.Client6.String() + "]:80": gateway6} {
		if last := h.explained("web-1", from); last.Source != want || last.Verdict == "drop" {
			h.t.Errorf("explain says of %s: %+v", from, last)
		}
	}
	for _, to := range []string{lab.Client4.String(), lab.Client6.String()} {
		h.must(w, "ping -n -c 2 -i 0.2 -W 5 "+to)
		h.must(w, "ping -n -c 2 -i 0.2 -W 5 -s 8000 "+to)
		h.answers(w, netip.MustParseAddr(to), 80, "client")
		for _, kind := range []string{"-U -p 33500", "-I", "-T"} {
			said := h.must(w, "traceroute -n -w 2 -q 1 -m 5 "+kind+" "+to)
			lines := strings.Split(strings.TrimSpace(said), "\n")
			if len(lines) != 4 || !strings.Contains(lines[2], map[bool]string{true: "198.18.0.1", false: "2001:db8::1"}[!strings.Contains(to, ":")]) ||
				!strings.Contains(lines[3], to) {
				h.t.Errorf("traceroute %s:\n%s", kind, said)
			}
		}
		for _, direction := range []string{"", " -R"} {
			h.transfers(w, to, direction)
		}
	}
	h.resolves(w, "www.example.net")
	h.nothingLeaked()
}

// explained is what the last hook says that a packet meets.
func (s *site) explained(in, packet string) api.HookAnswer {
	s.t.Helper()
	hooks := s.explain(in, packet).Hooks
	return hooks[len(hooks)-1]
}

// transfers runs iperf3 for two seconds.
func (h *hidden) transfers(w *lab.Namespace, to, direction string) {
	h.t.Helper()
	server, err := h.Client.Command(fmt.Sprintf("iperf3-%d", time.Now().UnixNano()), "iperf3", "-s", "-1", "--forceflush", "-B", to)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = server.Kill() }()
	eventually(h.t, func() error {
		if said := h.logOf(server); !strings.Contains(string(said), "listening") {
			return fmt.Errorf("iperf3 does not listen: %q", said)
		}
		return nil
	})
	said := h.must(w, "iperf3 -t 2 -c "+to+direction)
	if !strings.Contains(said, "receiver") || strings.Contains(said, " 0.00 Bytes") && !strings.Contains(said, "MBytes") {
		h.t.Errorf("iperf3%s to %s:\n%s", direction, to, said)
	}
}

// TestPathMTUDiscoveryWorksThroughSNAT: a router's error comes to the workload, and the node's own shows no private address.
func TestPathMTUDiscoveryWorksThroughSNAT(t *testing.T) {
	t.Parallel()
	h := newHidden(t)
	w := h.Workload(1)
	h.must(h.ToR, "ip link set client mtu 1400")
	for _, to := range []string{lab.Client4.String(), lab.Client6.String()} {
		r := h.in(w, "ping", "-n", "-M", "do", "-c", "3", "-i", "0.2", "-W", "2", "-s", "1400", to)
		if !strings.Contains(r.out+r.err, "1400") || !strings.Contains(strings.ToLower(r.out+r.err), "mtu") {
			t.Errorf("the workload did not hear of the small hop: %s%s", r.out, r.err)
		}
		h.answers(w, netip.MustParseAddr(to), 80, "client")
		h.transfers(w, to, "")
	}
	h.must(h.ToR, "ip link set client mtu 1500")

	// Behind the gateway it gets narrow, for what is answered: the gateway itself complains to who answered.
	errors := h.sniff("errors", "icmp[0] == 3 or (ip6 and icmp6)")
	h.must(h.Gateway.Namespace, "ip link set web-1 mtu 1300")
	for _, to := range []string{lab.Client4.String(), lab.Client6.String()} {
		h.transfers(w, to, " -R")
	}
	eventually(t, func() error {
		said := string(h.logOf(errors))
		if !strings.Contains(said, "unreachable - need to frag (mtu 1300)") || !strings.Contains(said, "packet too big, mtu 1300") {
			return fmt.Errorf("the gateway did not complain:\n%s", said)
		}
		return nil
	})
	if said := string(h.logOf(errors)); strings.Contains(said, private4) || strings.Contains(said, private6) {
		t.Errorf("the gateway's errors show private addresses:\n%s", said)
	}
	h.nothingLeaked()
}

// TestSNATOutlivesTheDaemon, killed and started again, and generation after generation under load.
func TestSNATOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	h := newHidden(t)
	w := h.Workload(1)
	begin := time.Now()
	stream := w.StartStream(t.Context(), lab.Client4, lab.Client6)
	t.Cleanup(stream.Stop)
	more := func() {
		t.Helper()
		base := stream.Answered()
		eventually(t, func() error {
			if n := stream.Answered() - base; n < requests {
				return fmt.Errorf("%d of %d requests answered", n, requests)
			}
			return nil
		})
	}
	long, err := w.Dial(t.Context(), "tcp", h.echoAt(h.Client, lab.Client4, 7000))
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close()
	speak := func() {
		t.Helper()
		if err := echoed(long, 1000); err != nil {
			t.Errorf("a connection was lost: %v", err)
		}
	}
	speak()
	more()
	h.kill()
	more()
	speak()
	h.start()
	more()
	speak()
	for i := range 3 {
		h.edit("    default: drop\n    fragments: track\n    rules:\n", "    default: drop\n    fragments: track\n    rules:\n"+
			fmt.Sprintf("      - {name: more-%d, from: [192.0.2.%d], action: drop}\n", i, i+1))
		h.apply()
		more()
		speak()
	}
	h.terminate()
	more()
	speak()
	h.start()
	more()
	stream.Stop()
	if load := stream.Between(begin, time.Now()); load.Lost != 0 {
		t.Errorf("%s: %v", load, load.Err)
	}
	h.nothingLeaked()
}

func (h *hidden) echoAt(ns *lab.Namespace, a netip.Addr, port uint16) string {
	h.t.Helper()
	at := netip.AddrPortFrom(a, port)
	h.echo(ns, at)
	return at.String()
}

// TestWorkloadsKnowEachOtherByTheirOwnAddresses, and so does the box.
func TestWorkloadsKnowEachOtherByTheirOwnAddresses(t *testing.T) {
	t.Parallel()
	h := newHidden(t)
	h.edit("\nbgp:\n", "\nforward: [{from: workload, to: workload}]\n\nbgp:\n")
	h.apply()
	for _, where := range []struct {
		ns   *lab.Namespace
		name string
		at   string
		want string
	}{
		{h.Workload(2), "another workload", "203.0.113.11:80", private4},
		{h.Gateway.Namespace, "the box", "198.18.0.2:8080", private4},
		{h.Client, "the world", lab.Client4.String() + ":8080", gateway4},
	} {
		if where.name == "another workload" {
			h.answers(h.Workload(1), lab.Web4[1], 80, "web-2")
			continue
		}
		var l net.Listener
		err := where.ns.Do(func() (err error) {
			l, err = net.Listen("tcp", where.at)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err := h.Workload(1).Dial(ctx, "tcp", where.at)
		if err != nil {
			t.Errorf("%s: %v", where.name, err)
			continue
		}
		defer conn.Close()
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if from, _, _ := net.SplitHostPort(in.RemoteAddr().String()); from != where.want {
			t.Errorf("%s sees %s, want %s", where.name, from, where.want)
		}
	}
	h.nothingLeaked()
}

// TestALANHidesBehindItsGateway: through the kernel's path, for which SNAT is at the uplink.
func TestALANHidesBehindItsGateway(t *testing.T) {
	t.Parallel()
	s := newLAN(t)
	s.edit("    addresses: [198.18.1.2/30]\n", "    addresses: [198.18.1.2/30, 10.0.9.1/24]\n    snat: auto\n",
		"        - {name: box, to: [self]", "        - {name: hosts, from: [10.0.9.0/24], action: accept}\n        - {name: box, to: [self]")
	s.must(s.Attacker, "ip addr add 10.0.9.2/24 dev up2")
	s.must(s.Attacker, "ip route replace default via 10.0.9.1 dev up2 src 10.0.9.2")
	h := &hidden{site: s.site, leaks: s.sniff("leaks", "src net 10.0.9.0/24 or dst net 10.0.9.0/24")}
	seen := s.sniff("seen", "src host "+gateway4)
	s.start()
	eventually(t, func() error { return s.get(s.Attacker, lab.Client4, 80, "client") })
	s.must(s.Attacker, "ping -n -c 2 -i 0.2 -W 5 "+lab.Client4.String())
	s.must(s.Attacker, "ping -n -c 2 -i 0.2 -W 5 -s 1400 "+lab.Client4.String())
	h.transfers(s.Attacker, lab.Client4.String(), "")
	h.transfers(s.Attacker, lab.Client4.String(), " -R")
	s.must(s.Attacker, "ping -n -c 1 -W 5 10.0.9.1") // the box is not beyond an uplink
	packet := "tcp 10.0.9.2:9 > " + lab.Client4.String() + ":80"
	if last := s.explained("eth1", packet); last.Hook != "tcx-egress" || last.Interface != "eth0" || last.Verdict != "pass" || last.Source != gateway4 {
		t.Errorf("explain says %+v", last)
	}
	if last := s.explained("eth1", "tcp 10.0.9.2:9 > 10.0.9.1:80"); last.Hook != "tcx-ingress" {
		t.Errorf("explain sends what is for the box out: %+v", last)
	}
	if said := string(s.logOf(seen)); strings.Count(said, " > ") < 20 {
		t.Errorf("the control saw next to nothing:\n%s", said)
	}
	h.nothingLeaked()

	// Announced, its sources have a way back, and stay. It is said when that is applied, and not for ever after.
	s.edit("    - {workloads: true}\n", "    - {workloads: true}\n    - {prefixes: [10.0.9.0/24]}\n")
	const told = "downstream eth1: snat: auto does not translate 10.0.9.0/24, which BGP announces"
	if said := s.apply(); !strings.Contains(said, told) {
		t.Errorf("apply says\n%s", said)
	}
	if w := strings.Join(s.status().Engine.Warnings, "\n"); strings.Contains(w, told) {
		t.Errorf("status warns of %s", w)
	}
	if last := s.explained("eth1", packet); last.Source != "" || last.SourceKept != "BGP announces 10.0.9.0/24" {
		t.Errorf("explain says %+v", last)
	}
}
