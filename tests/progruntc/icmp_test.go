package progruntc_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"sluice/xdp/abi"
)

// icmpError is an ICMP or ICMPv6 error from one address to another that quotes the packet of a line.
func icmpError(t *testing.T, from, to, quoted string) []byte {
	t.Helper()
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	quote := frameOf(t, quoted)[14:]
	if src.Is4() {
		quote = quote[:20+8] // RFC 792: the header and eight bytes
		ip := []byte{0x45, 0, 0, byte(28 + len(quote)), 0, 1, 0, 0, 64, 1, 0, 0}
		ip = append(append(ip, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(ip[10:], checksum(ip))
		return append(append(append(ethernet(0x0800), ip...), 3, 4, 0, 0, 0, 0, 5, 0), quote...)
	}
	ip := []byte{0x60, 0, 0, 0, 0, byte(8 + len(quote)), 58, 64}
	ip = append(append(ip, src.AsSlice()...), dst.AsSlice()...)
	return append(append(append(ethernet(0x86dd), ip...), 2, 0, 0, 0, 0, 0, 5, 0), quote...)
}

func ethernet(ethertype uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}, ethertype)
}

func TestICMPErrorsPassWhereTheyQuoteATrackedFlow(t *testing.T) {
	s := newSite(t, judged)
	tests := []struct {
		name  string
		steps []step
	}{
		{"a router complains to the workload that sent", []step{
			{at: "uplink ingress", frame: icmpError(t, "198.51.100.1", w1v4, "udp 10.0.1.10:4000 > 198.51.100.7:53"), reason: abi.ReasonDefaultDrop},
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink"},
			{at: "uplink ingress", frame: icmpError(t, "198.51.100.1", w1v4, "udp 10.0.1.10:4000 > 198.51.100.7:53"), reason: abi.ReasonDelivered, to: "wl1"},
			{at: "uplink ingress", frame: icmpError(t, "198.51.100.1", w1v4, "udp 10.0.1.10:4000 > 198.51.100.7:54"), reason: abi.ReasonDefaultDrop},
		}},
		{"who did not send the quoted packet hears nothing", []step{
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink"},
			{at: "uplink ingress", frame: icmpError(t, "198.51.100.1", w2v4, "udp 10.0.1.10:4000 > 198.51.100.7:53"), reason: abi.ReasonDefaultDrop},
			{at: "uplink ingress", frame: icmpError(t, "198.51.100.1", self4, "udp 10.0.1.10:4000 > 198.51.100.7:53"), reason: abi.ReasonDefaultDrop},
		}},
		{"a workload complains about what was delivered to it", []step{
			{at: "uplink ingress", line: "tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "wl1 ingress", frame: icmpError(t, w1v6, client6, "tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80"), reason: abi.ReasonForwarded, to: "uplink"},
		}},
		{"a workload complains about nothing else, whoever's flow it quotes", []step{
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "wl2 ingress", frame: icmpError(t, w2v4, client4, "tcp 198.51.100.7:9999 > 10.0.1.10:80"), reason: abi.ReasonDefaultDrop},
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink"},
			{at: "wl2 ingress", frame: icmpError(t, w2v4, w1v4, "udp 10.0.1.10:4000 > 198.51.100.7:53"), reason: abi.ReasonDefaultDrop},
		}},
		{"a tunnel that may not open flows to workloads may still complain about theirs", []step{
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 10.20.0.9:53", reason: abi.ReasonForwarded, to: "tap0"},
			{at: "tap0 ingress", frame: icmpError(t, "10.20.0.1", w1v4, "udp 10.0.1.10:4000 > 10.20.0.9:53"), reason: abi.ReasonDelivered, to: "wl1"},
		}},
		{"the box complains about what it could not forward", []step{
			{at: "wl1 egress", frame: icmpError(t, "169.254.1.1", w1v4, "udp 10.0.1.10:4000 > 198.51.100.7:53"), reason: abi.ReasonICMPError},
			{at: "uplink egress", frame: icmpError(t, self4, client4, "udp 198.51.100.7:53 > 192.0.2.9:53"), reason: abi.ReasonICMPError},
		}},
		{"what is forwarded by the kernel is excused from the matrix, too", []step{
			{at: "tap0 egress", line: "udp 192.0.2.9:53 > 10.20.0.9:53", from: "down", reason: abi.ReasonForwarded},
			{at: "down egress", frame: icmpError(t, "10.20.0.1", lan4, "udp 192.0.2.9:53 > 10.20.0.9:53"), from: "tap0", reason: abi.ReasonForwarded},
			{at: "down egress", frame: icmpError(t, "10.20.0.1", lan4, "udp 192.0.2.9:53 > 10.20.0.9:54"), from: "tap0", reason: abi.ReasonForwardDenied},
		}},
	}
	for _, test := range tests {
		s.sub(t, test.name, func(t *testing.T) {
			s.clearFlows(t)
			walk(t, s, test.steps...)
		})
	}
}
