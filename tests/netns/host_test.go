package netns

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sluice/cmd/lab"
)

// ids of programs, maps and links differ after a reload, and so does a generation's place in the tree of pins.
var ids = regexp.MustCompile(`\b(id|prog_id|link_id|program|map|link|prog/xdp id) \d+`)

// machineWithoutIDs is machine for comparing what was loaded twice.
func (s *site) machineWithoutIDs() string {
	s.t.Helper()
	return ids.ReplaceAllString(s.machine(), "$1 ID")
}

// foreign are rules and settings of somebody else, which Sluice must live beside.
const foreign = `
nft add table inet site
nft add chain inet site forward { type filter hook forward priority 0 ; policy accept ; }
nft add rule inet site forward ip saddr 10.66.0.0/16 counter drop
nft add set inet site bad { type ipv4_addr ; flags interval ; }
nft add element inet site bad { 10.66.1.0/24 }
nft add map inet site ports { type inet_service : verdict ; }
nft add element inet site ports { 25 : drop }
nft add rule inet site forward ip saddr 10.66.0.0/16 tcp dport vmap @ports
nft add rule inet site forward ip saddr 10.66.0.0/16 ct state invalid drop
nft add chain inet site early { type filter hook prerouting priority -300 ; }
nft add rule inet site early ip saddr @bad udp dport 53 notrack
nft add chain inet site marks { type route hook output priority -150 ; }
nft add rule inet site marks ip daddr 10.66.0.0/16 meta mark set 7
nft add table ip nat
nft add chain ip nat postrouting { type nat hook postrouting priority 100 ; }
nft add rule ip nat postrouting ip saddr 10.66.0.0/16 masquerade
iptables-nft -A FORWARD -s 10.67.0.0/16 -j DROP
iptables-nft -t mangle -A POSTROUTING -s 10.67.0.0/16 -j MARK --set-mark 7
iptables-nft -t raw -A PREROUTING -s 10.67.0.0/16 -j CT --notrack
iptables-nft -t nat -A PREROUTING -d 10.67.0.1 -p tcp --dport 8080 -j DNAT --to-destination 10.67.0.2:80
ip6tables-nft -A INPUT -s fd67::/16 -j ACCEPT
iptables-legacy -A INPUT -s 10.68.0.0/16 -j DROP
iptables-legacy -t nat -A POSTROUTING -s 10.68.0.0/16 -j MASQUERADE
iptables-legacy -t mangle -A FORWARD -s 10.68.0.0/16 -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
ip6tables-legacy -t raw -A PREROUTING -s fd68::/16 -j DROP
ip6tables-legacy -A FORWARD -s fd68::/16 -j DROP
ip link add other type veth peer name other-peer
ip link set other up
ip link set other-peer up
nft add table netdev edge
nft add chain netdev edge in { type filter hook ingress device "other" priority 0 ; }
nft add rule netdev edge in ip saddr 10.66.0.0/16 drop
ip addr add 10.99.0.1/24 dev other
ip addr add 192.0.2.200/32 dev eth0
ip route add 10.98.0.0/16 via 10.99.0.2
ip route add 10.97.0.0/16 via 10.99.0.2 table 77 proto static
ip rule add from 10.97.0.0/16 lookup 77 priority 1000
ip -6 rule add from fd97::/16 lookup 77 priority 1000
`

func (s *site) foreigners() {
	s.t.Helper()
	for line := range strings.Lines(strings.TrimSpace(foreign)) {
		s.must(s.Gateway.Namespace, line)
	}
	s.quiet()
}

func TestUpApplyAndDownLeaveTheRulesOfOthersByteIdentical(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.foreigners()
	before := s.netfilter()
	for _, want := range []string{"10.66.0.0/16", "@bad", "vmap @ports", "notrack", "hook ingress", "DNAT", "TCPMSS", "masquerade", "10.67.0.0/16", "fd67::/16", "10.68.0.0/16", "MASQUERADE", "fd68::/16"} {
		if !strings.Contains(before, want) {
			t.Fatalf("the rules of others lack %s:\n%s", want, before)
		}
	}
	s.start()
	s.same("up", before, s.netfilter())
	s.established()
	s.mustBe(s.open)
	s.edit(webOpen, webClosed)
	s.apply()
	s.same("apply", before, s.netfilter())
	s.sluice("down")
	s.ends(0)
	s.same("down", before, s.netfilter())
}

func TestDownGivesTheMachineBackButForTheManagementAddresses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	// The lab's own file, with its tunnel: everything that Sluice can own.
	s.write(s.labFile())
	s.foreigners()
	before := s.machine()
	s.start()
	s.established()
	eventually(t, func() error { return s.learned(bothDefaults) })
	if s.machine() == before {
		t.Fatal("the daemon changed nothing")
	}
	maps, programs, links := s.objects()
	r := s.sluice("down")
	if r.code != 0 {
		t.Fatalf("down: %d %s%s", r.code, r.out, r.err)
	}
	s.ends(0)
	// The addresses of the uplink stay: they are how the operator reaches the box where no interface is for management.
	for _, address := range []string{"198.18.0.2/30", "2001:db8::2/64"} {
		if !strings.Contains(s.must(s.Gateway.Namespace, "ip addr show dev eth0"), " "+address+" ") {
			t.Errorf("%s is gone", address)
		}
		s.must(s.Gateway.Namespace, "ip addr del "+address+" dev eth0")
	}
	eventually(t, func() error { // what the kernel does on its own, such as link-local addresses, takes a moment
		if after := s.machine(); after != before {
			return errors.New("not yet")
		}
		return nil
	}, func() { s.same("down", before, s.machine()) })
	if _, err := os.Stat(s.Gateway.BPFDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of pins: %v", err)
	}
	eventually(t, func() error { return s.gone(maps, programs, links) })
	if _, err := s.api.History(t.Context()); err == nil {
		t.Error("the API still answers")
	}
	s.start() // and all of it comes back
	s.established()
	s.mustBe(s.open)
}

// labFile is configs/lab-gateway.yaml as the lab has rendered it, with its keys, and without the checks that take time.
func (s *site) labFile() string {
	s.t.Helper()
	return edited(s.t, s.rendered, "\napply:\n  checks: [{neighbors: keep}, {reach: 198.18.0.1}]\n", "")
}

// objects are the ids of what the daemon has pinned.
func (s *site) objects() (maps []ebpf.MapID, programs []ebpf.ProgramID, links []link.ID) {
	s.t.Helper()
	for line := range strings.Lines(s.pins()) {
		f := strings.Fields(line)
		var id, program uint32
		switch f[1] {
		case "map":
			_, _ = fmt.Sscan(f[2], &id)
			maps = append(maps, ebpf.MapID(id))
		case "program":
			_, _ = fmt.Sscan(f[2], &id)
			programs = append(programs, ebpf.ProgramID(id))
		case "link":
			_, _ = fmt.Sscan(f[2], &id)
			_, _ = fmt.Sscan(f[4], &program)
			links = append(links, link.ID(id))
			programs = append(programs, ebpf.ProgramID(program))
		}
	}
	if len(maps) == 0 || len(programs) == 0 || len(links) == 0 {
		s.t.Fatalf("pins:\n%s", s.pins())
	}
	return maps, programs, links
}

// gone complains while an object is in the kernel; it goes some time after its last reference.
func (s *site) gone(maps []ebpf.MapID, programs []ebpf.ProgramID, links []link.ID) error {
	for _, id := range maps {
		if m, err := ebpf.NewMapFromID(id); err == nil {
			return errors.Join(fmt.Errorf("map %d is still there", id), m.Close())
		}
	}
	for _, id := range programs {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			return errors.Join(fmt.Errorf("program %d is still there", id), p.Close())
		}
	}
	for _, id := range links {
		if l, err := link.NewFromID(id); err == nil {
			return errors.Join(fmt.Errorf("link %d is still there", id), l.Close())
		}
	}
	return nil
}

func TestUnappliedPartsOfTheMachineAreLeftToOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.foreigners()
	s.start()
	s.established()
	// What somebody else adds while the gateway runs stays, over applies and restarts.
	for _, words := range []string{
		"ip addr add 192.0.2.201/32 dev eth0", "ip route add 10.96.0.0/16 via 10.99.0.2", "ip link set other mtu 1400",
		"nft add rule inet site forward ip saddr 10.65.0.0/16 drop", "sysctl -q -w net.ipv4.ip_default_ttl=63",
	} {
		s.must(s.Gateway.Namespace, words)
	}
	s.edit(webOpen, webClosed)
	s.apply()
	s.edit(webClosed, webOpen)
	s.apply()
	s.terminate()
	s.start()
	s.established()
	for words, want := range map[string]string{
		"ip addr show dev eth0": "192.0.2.201/32", "ip route show": "10.96.0.0/16 via 10.99.0.2", "ip link show other": "mtu 1400",
		"nft list ruleset": "10.65.0.0/16", "sysctl net.ipv4.ip_default_ttl": "= 63",
	} {
		if got := s.must(s.Gateway.Namespace, words); !strings.Contains(got, want) {
			t.Errorf("%s lacks %q:\n%s", words, want, got)
		}
	}
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
}
