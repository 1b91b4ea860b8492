package host

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestSysctlKeys(t *testing.T) {
	for key, path := range map[string]string{
		"net.ipv4.tcp_syncookies":               "net/ipv4/tcp_syncookies",
		"net/ipv4/tcp_syncookies":               "net/ipv4/tcp_syncookies",
		"net.ipv4.conf.eth0.forwarding":         "net/ipv4/conf/eth0/forwarding",
		"net.ipv4.conf.eth0.100.forwarding":     "net/ipv4/conf/eth0.100/forwarding",
		"net.ipv4.conf.eth0.100.7.forwarding":   "net/ipv4/conf/eth0.100.7/forwarding",
		"net.ipv4.conf.eth0/100.forwarding":     "net/ipv4/conf/eth0.100/forwarding",
		"net/ipv4/conf/eth0.100/forwarding":     "net/ipv4/conf/eth0.100/forwarding",
		"net.ipv6.neigh.eth0.100.gc_stale_time": "net/ipv6/neigh/eth0.100/gc_stale_time",
		"net.ipv4.conf.all.forwarding":          "net/ipv4/ip_forward",
		"net.netfilter.nf_conntrack_max":        "net/netfilter/nf_conntrack_max",
		"kernel.panic":                          "kernel/panic",
		"net.ipv4.tcp_syncookies.":              "",
		"":                                      "",
		"net":                                   "",
		"net/../../etc/passwd":                  "",
		"net.ipv4.conf.//.forwarding":           "net/ipv4/conf/../forwarding",
		"/proc/sys/net/ipv4/tcp_syncookies":     "",
		"net.ipv4.conf.eth0.100.rp_filter ":     "net/ipv4/conf/eth0.100/rp_filter ",
		"net.ipv4.conf..forwarding":             "",
		"net.ipv4.neigh.default.gc_thresh3":     "net/ipv4/neigh/default/gc_thresh3",
		"net.ipv6.conf.all.forwarding":          "net/ipv6/conf/all/forwarding",
	} {
		got, err := sysctlPath(key)
		if path == "net/ipv4/conf/../forwarding" {
			path = "" // what would leave its directory is no key, however it is spelled
		}
		if got != path || (err != nil) != (path == "") {
			t.Errorf("%q: got %q, %v; want %q", key, got, err, path)
		}
	}
}

func TestSysctlOfAnInterfaceWithADotInItsName(t *testing.T) {
	inNamespace(t)
	ip(t, "link add eth0.100 type veth peer name tor0")
	before := machine(t)
	h := open(t, t.TempDir())
	apply(t, h, State{Sysctls: []Sysctl{{"net.ipv4.conf.eth0.100.forwarding", "1"}, {"net.ipv6.conf.eth0/100.accept_ra", "2"}}})
	after := machine(t)
	has(t, after, "net/ipv4/conf/eth0.100/forwarding = 1")
	has(t, after, "net/ipv6/conf/eth0.100/accept_ra = 2")
	down(t, h)
	same(t, "the machine", before, machine(t))
}

func TestSysctlThatCannotBeSetIsAnErrorThatChangesNothing(t *testing.T) {
	inNamespace(t)
	before := machine(t)
	h := open(t, t.TempDir())
	for want, text := range map[Sysctl]string{
		{"net.ipv4.no_such_thing", "1"}:     "is unknown to this kernel (no /proc/sys/net/ipv4/no_such_thing): check its spelling",
		{"net.ipv4.tcp_syncookies", "many"}: "the kernel refuses the value: ",
		{"net.ipv4.tcp_syncookies", "0x1"}:  `the kernel made it "1": write the value that it takes`,
		{"..", "1"}:                         "is malformed",
	} {
		err := h.Apply(t.Context(), setSysctl{want})
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: got %v, want %q", want, err, text)
		}
		if strings.Contains(text, "unknown") && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v does not wrap ErrNotExist", err)
		}
	}
	same(t, "the machine", before, machine(t))
	if !h.ledger.empty() {
		t.Errorf("the ledger claims %+v", h.ledger)
	}
}

func TestForwardingOfAllGivesEveryInterfaceItsOwnValueBack(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	sysctl(t, "net/ipv6/conf/eth1/forwarding", "1")
	sysctl(t, "net/ipv4/conf/eth1/forwarding", "1")
	before := machine(t)
	h := open(t, t.TempDir())
	want := State{Sysctls: []Sysctl{
		{"net.ipv4.ip_forward", "1"}, {"net.ipv6.conf.all.forwarding", "1"}, {"net.ipv6.conf.tor0.forwarding", "0"},
	}}
	apply(t, h, want)
	up := machine(t)
	for _, line := range []string{"net/ipv6/conf/eth0/forwarding = 1", "net/ipv6/conf/tor0/forwarding = 0", "net/ipv4/conf/eth0/forwarding = 1"} {
		has(t, up, line)
	}
	// To repair all must not undo what single interfaces were given.
	sysctl(t, "net/ipv6/conf/all/forwarding", "0")
	apply(t, h, want)
	has(t, machine(t), "net/ipv6/conf/tor0/forwarding = 0")
	ip(t, "link del eth0") // an interface that is gone needs nothing back
	ip(t, "link add eth0 type veth peer name tor0")
	ip(t, "link del eth0")
	down(t, h)
	after := machine(t)
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/accept_redirects", "net/ipv6/conf/all/forwarding",
		"net/ipv6/conf/default/forwarding", "net/ipv6/conf/eth1/forwarding", "net/ipv4/conf/eth1/forwarding", "net/ipv6/conf/tor1/forwarding"} {
		i := strings.Index(before, key+" = ")
		has(t, after, before[i:i+strings.Index(before[i:], "\n")+1])
	}
}

func TestSysctlsGivenUpInAnyOrderEndWhereTheyBegan(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	sysctl(t, "net/ipv6/conf/eth1/forwarding", "1")
	sysctl(t, "net/ipv4/conf/tor0/rp_filter", "2")
	before := machine(t)
	var choices []Sysctl
	for _, key := range []string{
		"net.ipv4.ip_forward", "net.ipv4.conf.default.forwarding", "net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.eth1.forwarding",
		"net.ipv6.conf.all.forwarding", "net.ipv6.conf.default.forwarding", "net.ipv6.conf.eth0.forwarding", "net.ipv6.conf.eth1.forwarding",
		"net.ipv4.conf.default.rp_filter", "net.ipv4.conf.eth0.rp_filter", "net.ipv4.conf.tor0.rp_filter", "net.ipv4.conf.all.accept_redirects",
	} {
		choices = append(choices, Sysctl{key, "0"}, Sysctl{key, "1"})
	}
	r := rand.New(rand.NewPCG(3, 4))
	h := open(t, t.TempDir())
	for range 8 {
		for range 8 {
			apply(t, h, State{Sysctls: pick(r, choices, func(s Sysctl) string { return s.Key })})
		}
		apply(t, h, State{})
		same(t, "the machine", before, machine(t))
	}
}
