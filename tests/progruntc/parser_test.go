package progruntc_test

import (
	"fmt"
	"testing"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// TestEveryTruncationHasAReason cuts packets at every length, at every program. The parser is XDP's, and tested there
// field by field; what differs here is how the bytes come.
func TestEveryTruncationHasAReason(t *testing.T) {
	s := newSite(t)
	g := s.live(t)
	lines := []struct {
		line   string
		header int // with Ethernet; the kernel makes no test run of less
		cut    abi.Reason
	}{
		{"tcp 198.51.100.7:9999 > 10.0.1.10:80", 34, abi.ReasonIP4Truncated},
		{"udp 198.51.100.7:9999 > 10.0.1.10:80", 34, abi.ReasonIP4Truncated},
		{"tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80", 54, abi.ReasonIP6Truncated},
		{"icmpv6 2001:db8:7::7 > fd00:1::10", 54, abi.ReasonIP6Truncated},
	}
	for _, iface := range []string{"uplink", "down", "tap0", "wl1"} {
		for _, direction := range []string{"ingress", "egress"} {
			at := iface + " " + direction
			name, device := s.program(t, g, at)
			for _, l := range lines {
				frame := frameOf(t, l.line)
				copy(frame, device.HardwareAddr)
				for size := l.header; size < len(frame); size++ {
					s.counted(t, iface)
					verdict, _ := run(t, g.Programs[name], skBuff{Ifindex: uint32(device.Index)}, frame[:size])
					if verdict != tcxDrop {
						t.Errorf("%s: %d bytes of %q: returned %d", at, size, l.line, int32(verdict))
					}
					got := s.counted(t, iface)
					if len(got) != 1 || got[l.cut] != 1 {
						t.Errorf("%s: %d bytes of %q: counted %v", at, size, l.line, got)
					}
				}
			}
		}
	}
}

// TestAHeaderCutShortOnTheWireIsDropped sends what test runs refuse.
func TestAHeaderCutShortOnTheWireIsDropped(t *testing.T) {
	s := newSite(t)
	in := s.outside.open(t, "eth0")
	for line, reason := range map[string]abi.Reason{
		"tcp 198.51.100.7:9999 > 10.0.1.10:80":       abi.ReasonIP4Truncated,
		"tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80": abi.ReasonIP6Truncated,
	} {
		frame := frameOf(t, line)
		copy(frame, s.gateway.hardwareAddr(t, "uplink"))
		for size := 14; size < 34; size++ {
			in.send(t, frame[:size])
			s.awaitReason(t, "uplink", reason)
		}
	}
}

func TestStrictPrefixesHaveEdges(t *testing.T) {
	s := newSite(t, func(want *tc.State) {
		want.Generation.Strict = prefixes("10.99.0.0/16", "10.98.128.0/17", "2001:db8:99::/48")
		want.Generation.Egress = classify.Policy{Name: "egress", Default: classify.Accept}
	})
	g := s.live(t)
	for address, strict := range map[string]bool{
		"10.99.0.0": true, "10.99.255.255": true, "10.98.127.255": false, "10.98.128.0": true, "10.100.0.0": false,
		"2001:db8:99::1": true, "2001:db8:99:ffff:ffff:ffff:ffff:ffff": true, "2001:db8:9a::": false, "2001:db8:98:ffff::": false,
	} {
		st := step{at: "uplink egress", line: fmt.Sprintf("47 198.18.0.2 > %s", address), reason: abi.ReasonDefaultAccept}
		if address[:4] == "2001" {
			st.line = fmt.Sprintf("47 2001:db8::2 > %s", address)
		}
		if strict {
			st.reason = abi.ReasonStrictTunnel
		}
		s.try(t, g, st)
	}
}
