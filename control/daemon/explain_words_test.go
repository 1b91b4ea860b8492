package daemon

import (
	"strings"
	"testing"

	"sluice/xdp/packet"
)

func TestExplainTakesTheWordsOfRules(t *testing.T) {
	const v4, v6, hosts4, hosts6 = " 192.0.2.7:1 > 203.0.113.9:2", " [2001:db8::7]:1 > [2001:db8::9]:2", " 192.0.2.7 > 203.0.113.9", " 2001:db8::7 > 2001:db8::9"
	for line, want := range map[string]string{
		"tcp" + v4 + " flags=syn,!ack":                    "tcp" + v4 + " flags=S",
		"tcp" + v4 + " flags=SYN,ack,ece":                 "tcp" + v4 + " flags=SAE",
		"tcp" + v4 + " tcp_flags=!syn":                    "tcp" + v4 + " flags=none",
		"tcp" + v4 + " flags=sa":                          "tcp" + v4 + " flags=SA",
		"tcp" + v4 + " flags=None":                        "tcp" + v4 + " flags=none",
		"udp" + v4 + " dscp=ef vlan=untagged":             "udp" + v4 + " dscp=46",
		"udp" + v6 + " dscp=AF41 vlan=7":                  "udp" + v6 + " dscp=34 vlan=7",
		"udp" + v6 + " dscp=46":                           "udp" + v6 + " dscp=46",
		"icmp" + hosts4 + " type=echo-reply":              "icmp" + hosts4 + " type=0",
		"icmpv6" + hosts6 + " type=echo-reply":            "icmpv6" + hosts6 + " type=129",
		"icmp" + hosts4 + " type=port-unreachable id=7":   "icmp" + hosts4 + " type=3 code=3 id=7",
		"58" + hosts6 + " type=1/4":                       "icmpv6" + hosts6 + " type=1 code=4",
		"icmp" + hosts4 + " type=8 code=0":                "icmp" + hosts4 + " type=8",
		"udp" + v4 + " fragment=first":                    "udp" + v4 + " frag=0+",
		"udp" + hosts4 + " fragment=later":                "udp" + hosts4 + " frag=1480",
		"udp" + v4 + " fragment=whole ttl=3":              "udp" + v4 + " ttl=3",
		"udp" + v4 + " frag=0+ src-mac=02:00:00:00:00:09": "udp" + v4 + " frag=0+ src-mac=02:00:00:00:00:09",
	} {
		as, err := spelled(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if spec, err := packet.Parse(as); err != nil || spec.String() != want {
			t.Errorf("%s is %q (%v), want %q", line, spec, err, want)
		}
	}
}

func TestExplainListsTheWordsThatThereAre(t *testing.T) {
	const v4, hosts4, hosts6 = " 192.0.2.7:1 > 203.0.113.9:2", " 192.0.2.7 > 203.0.113.9", " 2001:db8::7 > 2001:db8::9"
	for line, want := range map[string]string{
		"tcp" + v4 + " flags=acc":                `option "flags=acc": "acc" is not a TCP flag; did you mean ack?; or letters of FSRPAUEW; or none`,
		"tcp" + v4 + " flags=":                   `"" is not a TCP flag; write fin, syn, rst`,
		"udp" + v4 + " flags=syn":                "flags are for tcp",
		"udp" + v4 + " dscp=fast":                `option "dscp=fast": "fast" is not a DSCP; write df, le, cs0-cs7, af11-af43, va, ef or a number up to 63`,
		"udp" + v4 + " dscp=64":                  "64 is outside 0-63",
		"icmp" + hosts4 + " type=ping":           `"ping" is not an ICMP type; write a name such as echo-request, a number, or type/code such as "3/4"; there are echo-request, echo-reply,`,
		"icmp" + hosts4 + " type=packet-too-big": "packet-too-big is of icmpv6, not of icmp; write fragmentation-needed, or protocol: icmpv6; there are echo-request,",
		"icmpv6" + hosts6 + " type=256":          `256 is not an ICMP type`,
		"udp" + v4 + " type=8":                   "type, code and id are of icmp and icmpv6",
		"udp" + v4 + " fragment=second":          `"second" is not one of whole, fragmented, first, later`,
		"udp" + v4 + " fragment=fragmented":      "write fragment=first or fragment=later",
		"udp" + v4 + " fragment=later":           "a later fragment shows no ports",
		"udp" + v4 + " color=red":                "no such option: want one of flags ttl dscp length len vlan frag type code id mss src-mac dst-mac, or fragment",
		"udp" + v4 + " ef":                       "want OPTION=VALUE",
		"upd" + v4 + " dscp=ef":                  `protocol "upd": want tcp, udp`,
		"tcp 192.0.2.7:1":                        "want PROTOCOL FROM > TO",
	} {
		as, err := spelled(line)
		if err == nil {
			_, err = packet.Parse(as)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "packet \"") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}
