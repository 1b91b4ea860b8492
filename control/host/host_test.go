package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// gateway is a state that uses everything.
func gateway() State {
	return State{
		Links: []Link{{Name: "eth0", Up: true, MTU: 1400, Group: 18800}, {Name: "eth1", Up: true}},
		Addresses: []Address{
			{Link: "eth0", Prefix: pfx("198.18.0.2/30")},
			{Link: "eth0", Prefix: pfx("2001:db8::2/64")},
			{Link: "eth1", Prefix: pfx("198.18.1.2/24")},
			{Link: "lo", Prefix: pfx("203.0.113.1/32")},
		},
		Routes: []Route{
			{Prefix: pfx("192.0.2.0/26"), Type: Unicast, Via: hops("198.18.1.7"), Table: 254},
			{Prefix: pfx("192.0.2.64/26"), Type: Unicast, Via: hops("198.18.0.1", "198.18.1.1"), Metric: 50, Table: 254},
			{Prefix: pfx("192.0.2.128/26"), Type: Unicast, Via: hops("2001:db8::1"), Table: 254},
			{Prefix: pfx("198.51.100.0/24"), Type: Unicast, Link: "eth1", Table: 254},
			{Prefix: pfx("10.9.0.0/16"), Type: Blackhole, Table: 254},
			{Prefix: pfx("0.0.0.0/0"), Type: Unicast, Via: hops("198.18.0.1"), Metric: 200, Table: 254},
			{Prefix: pfx("0.0.0.0/0"), Type: Prohibit, Table: 4711},
			{Prefix: pfx("::/0"), Type: Prohibit, Table: 4711},
			{Prefix: pfx("::/0"), Type: Unicast, Via: hops("2001:db8::1"), Table: 254},
			{Prefix: pfx("2001:db8:1::/48"), Type: Unicast, Via: hops("2001:db8::1", "2001:db8::3"), Table: 254},
			{Prefix: pfx("2001:db8:2::/48"), Type: Unicast, Link: "eth1", Table: 254},
			{Prefix: pfx("2001:db8:3::/48"), Type: Blackhole, Table: 254},
			{Prefix: pfx("2001:db8:4::/48"), Type: Unicast, Via: hops("fe80::1"), Link: "eth1", Table: 100},
		},
		Rules: []Rule{
			{Priority: 900, InLink: "eth0", Table: 4711},
			{Priority: 900, IPv6: true, InLink: "eth0", Table: 4711},
			{Priority: 901, InLink: "eth1", Table: 200},
			{Priority: 902, InLink: "eth0", Table: 254, SuppressGroup: 18800},
			{Priority: 903, InLink: "eth0", Prohibit: true},
			{Priority: 903, IPv6: true, InLink: "eth0", Prohibit: true},
			{Priority: 904, OutLink: "eth1", Table: 188},
			{Priority: 904, From: pfx("10.0.0.1/32"), To: pfx("10.20.0.9/32"), Table: 188},
			{Priority: 905, Table: 254, Mark: 1 << 24, Mask: 1 << 24},
			{Priority: 905, To: pfx("198.51.100.7/32"), Table: 254},
			{Priority: 905, IPv6: true, Table: 254, Mark: 1 << 24, Mask: 3 << 24},
			{Priority: 905, IPv6: true, To: pfx("2001:db8:7::/64"), Table: 254},
			{Priority: 906, Table: 254, Shortest: 1},
			{Priority: 906, IPv6: true, Table: 254, Shortest: 49},
			{Priority: 907, Mask: 1 << 24, Table: 187},
			{Priority: 907, IPv6: true, Mask: 1 << 24, Table: 187},
		},
		Sysctls: []Sysctl{
			{Key: "net.ipv4.conf.eth0.rp_filter", Value: "2"},
			{Key: "net.ipv4.ip_forward", Value: "1"},
			{Key: "net.ipv4.tcp_rmem", Value: "4096 131072 6000000"},
			{Key: "net.ipv6.conf.all.forwarding", Value: "1"},
		},
		Tags: []Tags{{"eth0", true}},
	}
}

func TestGatewayIsAppliedAndDownGivesTheMachineBack(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	ip(t, "link set eth1 down")
	ip(t, "link set tor1 down")
	// What is here belongs to others, some of it next door to ours.
	ip(t, "addr add 198.18.0.200/24 dev eth0")
	ip(t, "addr add 2001:db8::99/64 dev eth0 nodad")
	ip(t, "route add 198.51.100.128/25 via 198.18.0.201 proto static")
	ip(t, "route add default via 198.18.0.201 metric 100")
	ip(t, "rule add pref 900 iif tor0 lookup 300")
	run(t, "nft", "add table inet theirs; add chain inet theirs in { type filter hook input priority 0; }; add rule inet theirs in tcp dport 22 accept")
	run(t, "iptables", "-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "DROP")
	before := machine(t)

	dir := t.TempDir()
	h := open(t, dir)
	want := gateway()
	apply(t, h, want)
	up := machine(t)
	for _, part := range []string{
		"eth0@tor0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400", "inet 198.18.0.2/30 ", "inet6 2001:db8::2/64 scope global",
		"198.18.0.200/24", "192.0.2.0/26 via 198.18.1.7 dev eth1 proto 188", "nexthop via 198.18.1.1 dev eth1",
		"192.0.2.128/26 via inet6 2001:db8::1 dev eth0 proto 188", "198.51.100.0/24 dev eth1 proto 188 scope link",
		"prohibit default table 4711 proto 188", "prohibit default dev lo table 4711 proto 188",
		"900:	from all iif eth0 lookup 4711", "904:	from all oif eth1 lookup 188", "905:	from all fwmark 0x1000000/0x1000000 lookup main",
		"905:	from all to 198.51.100.7 lookup main", "906:	from all lookup main suppress_prefixlength 0", "906:	from all lookup main suppress_prefixlength 48", "net/ipv6/conf/eth1/forwarding = 1", "tcp dport 22 accept", "-A FORWARD -s 192.0.2.0/24 -j DROP",
	} {
		has(t, up, part)
	}
	hasNot(t, up, "tentative")

	// The next daemon finds the same; nothing but the directory is handed over.
	second := open(t, dir)
	if ops := Diff(observe(t, second), want); len(ops) > 0 {
		t.Errorf("after a restart: %v", ops)
	}
	down(t, second)
	same(t, "the machine after down", before, machine(t))
	if _, err := os.Stat(filepath.Join(dir, "host.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ledger is still there: %v", err)
	}
	down(t, second)
	same(t, "the machine after a second down", before, machine(t))
}

func TestManagementStaysOnDown(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	dir := t.TempDir()
	h := open(t, dir)
	keep := State{
		Addresses: []Address{{Link: "eth1", Prefix: pfx("198.18.1.2/24"), Keep: true}},
		Routes: []Route{{
			Prefix: pfx("192.0.2.0/24"), Type: Unicast, Via: hops("198.18.1.1"), Table: 254, Keep: true,
		}},
	}
	want := keep
	want.Addresses = append([]Address{{Link: "eth0", Prefix: pfx("198.18.0.2/30")}}, want.Addresses...)
	want.Routes = append([]Route{{Prefix: pfx("10.9.0.0/16"), Type: Blackhole, Table: 254}}, want.Routes...)
	apply(t, h, want)
	down(t, h)
	after := machine(t)
	has(t, after, "198.18.1.2/24")
	has(t, after, "192.0.2.0/24 via 198.18.1.1 dev eth1 proto 188")
	hasNot(t, after, "198.18.0.2/30")
	hasNot(t, after, "blackhole 10.9")

	// What stayed is still known as ours, and goes when it is no longer wanted.
	next := open(t, dir)
	if ops := Diff(observe(t, next), keep); len(ops) > 0 {
		t.Errorf("after down and start: %v", ops)
	}
	apply(t, next, State{})
	after = machine(t)
	hasNot(t, after, "198.18.1.2/24")
	hasNot(t, after, "proto 188")
}

func TestWhatWasThereIsAdoptedAndStays(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	ip(t, "addr add 198.18.0.2/30 dev eth0")
	ip(t, "route add default via 198.18.0.1 proto dhcp")
	ip(t, "-6 route add 2001:db8:5::/48 dev eth0 proto ra")
	before := machine(t)
	h := open(t, t.TempDir())
	apply(t, h, State{
		Links:     []Link{{Name: "eth0", Up: true, MTU: 1500}},
		Addresses: []Address{{Link: "eth0", Prefix: pfx("198.18.0.2/30")}},
		Routes: []Route{
			{Prefix: pfx("0.0.0.0/0"), Type: Unicast, Via: hops("198.18.0.1"), Table: 254},
			{Prefix: pfx("2001:db8:5::/48"), Type: Unicast, Link: "eth0", Table: 254},
		},
	})
	same(t, "the machine after adoption", before, machine(t))
	done := apply(t, h, State{})
	same(t, "the machine after giving up", before, machine(t))
	has(t, strings.Join(done, "\n"), "leave address 198.18.0.2/30 dev eth0 as it was found")
	has(t, strings.Join(done, "\n"), "leave route 0.0.0.0/0 via 198.18.0.1 dev eth0 as it was found")
}

func TestDriftIsSeenAndRepaired(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	h := open(t, t.TempDir())
	want := gateway()
	apply(t, h, want)
	for name, drift := range map[string]func(){
		"set link eth0 mtu 1400":                                     func() { ip(t, "link set eth0 mtu 1450") },
		"set address 203.0.113.1/32 dev lo":                          func() { ip(t, "addr del 203.0.113.1/32 dev lo") },
		"set route 10.9.0.0/16":                                      func() { ip(t, "route del blackhole 10.9.0.0/16") },
		"set route 192.0.2.0/26":                                     func() { ip(t, "route change 192.0.2.0/26 via 198.18.1.9 proto 188") },
		"set route 2001:db8:1::/48":                                  func() { ip(t, "-6 route replace 2001:db8:1::/48 via 2001:db8::9 proto 188") },
		"add IPv6 rule 900 iif eth0 lookup 4711":                     func() { ip(t, "-6 rule del pref 900") },
		"set sysctl net.ipv4.ip_forward = 1":                         func() { sysctl(t, "net/ipv4/ip_forward", "0") },
		"set link eth1 up|set address 198.18.1.2/24|set route 192.0": func() { ip(t, "link set eth1 down"); ip(t, "addr del 198.18.1.2/24 dev eth1") },
		"delete route 192.0.2.200/32":                                func() { ip(t, "route add 192.0.2.200/32 dev eth0 proto 188") },
	} {
		drift()
		// What is found below is what an operator is shown; what a link took along is part of it.
		done := strings.ReplaceAll(strings.Join(apply(t, h, want), "\n"), "blackhole ", "")
		for _, part := range strings.Split(name, "|") {
			has(t, done, part)
		}
	}
}

func TestMissingLinkIsAnErrorThatChangesNothing(t *testing.T) {
	inNamespace(t)
	before := machine(t)
	h := open(t, t.TempDir())
	const text = "interface eth9 does not exist; interfaces here: lo"
	for _, want := range []State{
		{Links: []Link{{Name: "eth9", Up: true}}},
		{Links: []Link{{Name: "eth9", MTU: 1400}}},
		{Addresses: []Address{{Link: "eth9", Prefix: pfx("198.18.0.2/30")}}},
		{Routes: []Route{{Prefix: pfx("192.0.2.0/24"), Type: Unicast, Link: "eth9", Table: 254, Keep: true}}},
		{Sysctls: []Sysctl{{Key: "net.ipv4.conf.eth9.rp_filter", Value: "1"}}},
	} {
		err := h.Apply(t.Context(), Diff(State{}, want)[0])
		if !errors.Is(err, ErrNoLink) || !strings.Contains(err.Error(), text) {
			t.Errorf("apply: got %v, want %q", err, text)
		}
	}
	same(t, "the machine", before, machine(t))
	if !h.ledger.empty() {
		t.Errorf("the ledger claims %+v", h.ledger)
	}
}

func TestForeignRouteOfTheSameIdentityIsAnErrorAndStays(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	ip(t, "addr add 198.18.0.2/24 dev eth0")
	ip(t, "addr add 2001:db8::2/64 dev eth0 nodad")
	ip(t, "route add default via 198.18.0.1 proto static")
	ip(t, "-6 route add 2001:db8:7::/48 via 2001:db8::1 proto static")
	before := machine(t)
	h := open(t, t.TempDir())
	for _, r := range []Route{
		{Prefix: pfx("0.0.0.0/0"), Type: Unicast, Via: hops("198.18.0.9"), Table: 254, Keep: true},
		{Prefix: pfx("2001:db8:7::/48"), Type: Unicast, Via: hops("2001:db8::9"), Table: 254},
		{Prefix: pfx("198.18.0.0/24"), Type: Blackhole, Table: 254},
	} {
		err := h.Apply(t.Context(), Diff(State{}, State{Routes: []Route{r}})[0])
		if r.Type == Blackhole { // the kernel's connected route has metric 0 too
			has(t, err.Error(), "protocol 2")
			continue
		}
		has(t, err.Error(), "which is not ours (protocol 4): remove it, or write another metric")
	}
	same(t, "the machine", before, machine(t))
	if !h.ledger.empty() {
		t.Errorf("the ledger claims %+v", h.ledger)
	}
}

func TestEndedContextChangesNothing(t *testing.T) {
	inNamespace(t)
	before := machine(t)
	h := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Observe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("observe: %v", err)
	}
	op := Diff(State{}, State{Addresses: []Address{{Link: "lo", Prefix: pfx("203.0.113.1/32")}}})[0]
	if err := h.Apply(ctx, op); !errors.Is(err, context.Canceled) {
		t.Errorf("apply: %v", err)
	}
	same(t, "the machine", before, machine(t))
}

// What the engine asks of a driver; control/engine must not be imported from here.
var _ interface {
	Observe(context.Context) (State, error)
	Diff(have, want State) []Op
	Apply(context.Context, Op) error
} = (*Host)(nil)

func TestForeignRuleThatIsEqualStays(t *testing.T) {
	inNamespace(t)
	ip(t, "rule add pref 900 iif eth0 lookup 100 protocol 4")
	ip(t, "-6 rule add pref 900 iif eth0 lookup 100 protocol 4")
	before := machine(t)
	h := open(t, t.TempDir())
	apply(t, h, State{Rules: []Rule{lookup(900, false, "eth0", 100), lookup(900, true, "eth0", 100)}})
	has(t, ip(t, "rule"), "lookup 100 proto ospf") // iproute2's name of 188
	has(t, ip(t, "rule"), "lookup 100 proto static")
	down(t, h)
	same(t, "the machine", before, machine(t))
}
