package host

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// richNFT is what hosts of containers have: chains that jump, both kinds of NAT, marks, sets, maps, conntrack.
const richNFT = `
table inet fw {
	set bad { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 } }
	chain early { type filter hook prerouting priority raw; policy accept; ip saddr @bad counter drop; udp dport 53 notrack; }
	chain in { type filter hook input priority 0; policy drop; ct state established accept; tcp dport 22 accept; }
	chain through {
		type filter hook forward priority 0; policy drop;
		ct state vmap { established : accept, invalid : drop }
		ip protocol tcp meta mark set 7
		iifname "eth0" jump customers
	}
	chain customers { ip daddr 10.0.0.0/8 jump deep; counter; }
	chain deep { ct state new log; tcp dport 25 drop; }
	chain unused { drop; }
}
table ip nat {
	chain pre { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 10.0.1.10:80; }
	chain post { type nat hook postrouting priority srcnat; ip saddr 10.0.0.0/8 masquerade; }
}
table netdev edge {
	chain eth0in { type filter hook ingress device "eth0" priority 0; policy accept; ip saddr 198.51.100.0/24 drop; }
}
table bridge lan {
	chain through { type filter hook forward priority 0; ip saddr 10.0.0.1 drop; }
}
`

func missedText(r ruleset) map[string]string {
	out := map[string]string{}
	for _, m := range r.missed() {
		out[m.name] = m.detail()
	}
	return out
}

func sameMissed(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: got %q, want %q", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d chains: %q", len(got), got)
	}
}

func TestChainsOfNFTablesThatRedirectedPacketsPassByAreNamed(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	file := filepath.Join(t.TempDir(), "rules.nft")
	if err := os.WriteFile(file, []byte(richNFT), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nft", "-f", file)
	before := run(t, "nft", "list", "ruleset")
	r, err := readNFTables()
	if err != nil {
		t.Fatal(err)
	}
	sameMissed(t, missedText(r), map[string]string{
		"inet fw early":      "filter at prerouting: 2 rules",
		"inet fw through":    "filter at forward: 3 rules and 4 in chains that it jumps to, drops by default; 2 of them ask conntrack",
		"ip nat pre":         "nat at prerouting: 1 rule",
		"ip nat post":        "nat at postrouting: 1 rule",
		"netdev edge eth0in": "filter at ingress: 1 rule",
	})
	if after := run(t, "nft", "list", "ruleset"); after != before {
		t.Errorf("reading changed the rules:\n%s\n%s", before, after)
	}
}

func TestChainsOfIPTablesThatRedirectedPacketsPassByAreNamed(t *testing.T) {
	for _, kind := range []string{"legacy", "nft"} {
		t.Run(kind, func(t *testing.T) {
			inNamespace(t)
			for _, rule := range []string{
				"iptables -N DOCKER-USER", "iptables -N DEEP", "iptables -P FORWARD DROP", "iptables -A FORWARD -j DOCKER-USER",
				"iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT", "iptables -A DOCKER-USER -s 192.0.2.0/24 -j DEEP",
				"iptables -A DOCKER-USER -j RETURN", "iptables -A DEEP -p tcp --dport 25 -j DROP", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
				"iptables -A FORWARD", "iptables -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE",
				"iptables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 10.0.1.10:80",
				"iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
				"ip6tables -t raw -A PREROUTING -p udp --dport 53 -j CT --notrack", "ip6tables -A OUTPUT -d fd00::/8 -j DROP",
			} {
				words := strings.Fields(rule)
				run(t, words[0]+"-"+kind, words[1:]...)
			}
			read := readIPTables
			if kind == "nft" {
				read = readNFTables
			}
			r, err := read()
			if err != nil {
				t.Fatal(err)
			}
			sameMissed(t, missedText(r), map[string]string{
				"ip filter FORWARD":  "filter at forward: 3 rules and 3 in chains that it jumps to, drops by default; 1 of them ask conntrack",
				"ip nat POSTROUTING": "nat at postrouting: 1 rule",
				"ip nat PREROUTING":  "nat at prerouting: 1 rule",
				"ip mangle FORWARD":  "mangle at forward: 1 rule",
				"ip6 raw PREROUTING": "raw at prerouting: 1 rule",
			})
			if n := r.total(); n != 12 {
				t.Errorf("%d rules, want 12", n)
			}
			got := findings(t, DoctorOptions{BPFDir: t.TempDir()})
			name := map[string]string{"legacy": "iptables-legacy", "nft": "nftables"}[kind]
			is(t, got[name], StatusWarn, "12 rules; redirected packets of workloads pass by 5 chains")
			is(t, got[name+"/ip filter FORWARD"], StatusWarn, "filter at forward: 3 rules")
			is(t, got[name+"/ip nat POSTROUTING"], StatusWarn, "nat at postrouting")
			for finding, fix := range map[string]string{"ip nat POSTROUTING": "`snat:` of the workload, or `path: stack`", "ip filter FORWARD": "write what it does as ingress: and egress:",
				"ip mangle FORWARD": "`path: stack`"} {
				if f := got[name+"/"+finding]; !strings.Contains(f.Fix, fix) {
					t.Errorf("%+v, want %q", f, fix)
				}
			}
		})
	}
}
