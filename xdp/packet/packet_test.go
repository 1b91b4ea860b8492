package packet_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"sluice/xdp/classify"
	"sluice/xdp/packet"
)

// describe reads a frame back with a parser that is not ours.
func describe(t *testing.T, frame []byte) []string {
	t.Helper()
	decoded := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if failure := decoded.ErrorLayer(); failure != nil {
		t.Fatalf("the frame does not decode: %v", failure.Error())
	}
	var kinds []string
	for _, l := range decoded.Layers() {
		kinds = append(kinds, l.LayerType().String())
	}
	return kinds
}

func TestParseMakesTheFrameThatTheLineDescribes(t *testing.T) {
	tests := []struct {
		line, again string // again: what String says, where it is not the line
		layers      string
		size        int
	}{
		{"tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=S", "", "Ethernet IPv4 TCP", 54},
		{"tcp 192.0.2.7:1234 > 203.0.113.9:443", "tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=S", "Ethernet IPv4 TCP", 54},
		{"tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=none", "", "Ethernet IPv4 TCP", 54},
		{"TCP [2001:db8::7]:1 > [2001:db8::9]:443 flags=sa", "tcp [2001:db8::7]:1 > [2001:db8::9]:443 flags=SA", "Ethernet IPv6 TCP", 74},
		{"udp [2001:db8::7]:53 > [2001:db8::9]:1024 ttl=1 vlan=100", "", "Ethernet Dot1Q IPv6 UDP", 66},
		{"udp 192.0.2.7:9 > 203.0.113.9:1024 vlan=5 vlan=6 len=500", "", "Ethernet Dot1Q Dot1Q IPv4 UDP Payload", 500},
		{"sctp 192.0.2.7:53 > 203.0.113.9:1024", "", "Ethernet IPv4 SCTP", 46},
		{"icmp 192.0.2.7 > 203.0.113.9 type=3 code=4", "", "Ethernet IPv4 ICMPv4", 42},
		{"icmp 192.0.2.7 > 203.0.113.9 id=77", "icmp 192.0.2.7 > 203.0.113.9 type=8 id=77", "Ethernet IPv4 ICMPv4", 42},
		{"icmpv6 2001:db8::7 > 2001:db8::9 type=128 id=9", "", "Ethernet IPv6 ICMPv6 ICMPv6Echo", 62},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 flags=sew dscp=46", "tcp 192.0.2.7:1 > 203.0.113.9:2 flags=SEW dscp=46", "Ethernet IPv4 TCP", 54},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 mss=1460", "tcp 192.0.2.7:1 > 203.0.113.9:2 flags=S mss=1460", "Ethernet IPv4 TCP", 58},
		{"udp [2001:db8::7]:1 > [2001:db8::9]:2 dscp=63 vlan=7 length=100", "udp [2001:db8::7]:1 > [2001:db8::9]:2 dscp=63 vlan=7 len=118",
			"Ethernet Dot1Q IPv6 UDP Payload", 118},
		{"udplite 192.0.2.7:1 > 203.0.113.9:2", "", "", 42},
		{"136 192.0.2.7:1 > 203.0.113.9:2", "udplite 192.0.2.7:1 > 203.0.113.9:2", "", 42},
		{"gre 192.0.2.7 > 203.0.113.9", "", "Ethernet IPv4 GRE", 38},
		{"89 192.0.2.7 > 224.0.0.5", "", "", 42},
		{"udp 192.0.2.7:1 > 203.0.113.9:2 frag=0+", "", "Ethernet IPv4 Fragment", 42},
		{"udp 192.0.2.7 > 203.0.113.9 frag=1480", "", "Ethernet IPv4 Fragment", 42},
		{"tcp 2001:db8::7 > 2001:db8::9 frag=1448+ len=90", "", "Ethernet IPv6 IPv6Fragment Fragment", 90},
		{"esp 192.0.2.7 > 203.0.113.9 src-mac=02:00:00:00:00:09 dst-mac=ff:ff:ff:ff:ff:ff",
			"esp 192.0.2.7 > 203.0.113.9 src-mac=02:00:00:00:00:09 dst-mac=ff:ff:ff:ff:ff:ff", "Ethernet IPv4 IPSecESP", 42},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			spec, err := packet.Parse(test.line)
			if err != nil {
				t.Fatal(err)
			}
			want := test.again
			if want == "" {
				want = test.line
			}
			if got := spec.String(); got != want {
				t.Errorf("String gives %q", got)
			}
			frame, err := spec.Frame()
			if err != nil {
				t.Fatal(err)
			}
			if len(frame) != test.size {
				t.Errorf("%d bytes, want %d", len(frame), test.size)
			}
			if test.layers != "" {
				if diff := cmp.Diff(strings.Fields(test.layers), describe(t, frame)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestParseSaysWhatIsWrongAndWhatWouldBeRight(t *testing.T) {
	tests := []struct{ line, want string }{
		{"", example},
		{"tcp 192.0.2.7:1 203.0.113.9:2", example},
		{"tpc 192.0.2.7:1 > 203.0.113.9:2", "want tcp, udp"},
		{"256 192.0.2.7 > 203.0.113.9", "number to 255"},
		{"tcp 192.0.2.7 > 203.0.113.9:2", "192.0.2.7:1234"},
		{"tcp 2001:db8::1:80 > [2001:db8::2]:2", "[2001:db8::7]:1234"},
		{"icmp 192.0.2.7:1 > 203.0.113.9", "without a port"},
		{"tcp [2001:db8::1]:1 > 203.0.113.9:2", "different families"},
		{"tcp [::ffff:192.0.2.7]:1 > [::ffff:192.0.2.8]:2", "write an IPv4 address as IPv4"},
		{"icmp 2001:db8::1 > 2001:db8::2", "icmpv6"},
		{"icmpv6 192.0.2.7 > 203.0.113.9", "IPv4 has icmp"},
		{"udp 192.0.2.7:1 > 203.0.113.9:2 flags=S", "flags are for tcp"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 flags=X", "FSRPAUEW"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 flags=A mss=1460", "mss is for a SYN"},
		{"udp 192.0.2.7:1 > 203.0.113.9:2 mss=1460", "mss is for a SYN"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 mss=0", "from 1 to 65535"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 dscp=64", "from 0 to 63"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 length=39", "headers alone are 54"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 length=60 len=100", "write one of them"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 ttl=256", "from 1 to 255"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 len=20", "headers alone are 54"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 frag=3", "multiple of 8"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 frag=0", "leave frag out"},
		{"tcp 192.0.2.7 > 203.0.113.9 frag=65528 len=60", "more than an IP packet holds"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 colour=red", "want one of flags ttl"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 syn", "OPTION=VALUE"},
		{"tcp 192.0.2.7:1 > 203.0.113.9:2 src-mac=1", "02:00:00:00:00:01"},
	}
	for _, test := range tests {
		_, err := packet.Parse(test.line)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v; want %q in it", test.line, err, test.want)
		}
	}
}

func TestSeenIsThePacketAsPoliciesSeeIt(t *testing.T) {
	v4 := func(p classify.Packet) classify.Packet {
		p.Src, p.Dst = netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("203.0.113.9")
		return p
	}
	for line, want := range map[string]classify.Packet{
		"tcp 192.0.2.7:1 > 203.0.113.9:2 flags=SA dscp=46 ttl=9 vlan=5 vlan=6 length=1500": v4(classify.Packet{Protocol: 6, SrcPort: 1, DstPort: 2,
			HasPorts: true, TCPFlags: packet.SYN | packet.ACK, DSCP: 46, TTL: 9, VLAN: 5, Length: 1500}),
		"tcp 192.0.2.7:1 > 203.0.113.9:2 flags=none": v4(classify.Packet{Protocol: 6, SrcPort: 1, DstPort: 2, HasPorts: true, TTL: 64, Length: 40}),
		"icmp 192.0.2.7 > 203.0.113.9 type=3 code=4": v4(classify.Packet{Protocol: 1, HasICMP: true, ICMPType: 3, ICMPCode: 4, TTL: 64, Length: 28}),
		"icmp 192.0.2.7 > 203.0.113.9 frag=8":        v4(classify.Packet{Protocol: 1, Fragment: true, NonFirst: true, TTL: 64, Length: 28}),
		"tcp 192.0.2.7 > 203.0.113.9 frag=8 len=90":  v4(classify.Packet{Protocol: 6, Fragment: true, NonFirst: true, TTL: 64, Length: 76}),
	} {
		spec, err := packet.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, spec.Seen(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}

const example = "tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=S"

func FuzzParseAgreesWithString(f *testing.F) {
	f.Add(example)
	f.Add("udp [2001:db8::7]:53 > [2001:db8::9]:1024 ttl=1 vlan=100 frag=0+")
	f.Add("89 192.0.2.7 > 203.0.113.9 len=99 frag=8")
	f.Fuzz(func(t *testing.T, line string) {
		spec, err := packet.Parse(line)
		if err != nil {
			return
		}
		again, err := packet.Parse(spec.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", line, spec, err)
		}
		a, errA := spec.Frame()
		b, errB := again.Frame()
		if errA != nil || errB != nil || !cmp.Equal(a, b) {
			t.Fatalf("%q and %q make different frames (%v, %v)", line, spec, errA, errB)
		}
	})
}
