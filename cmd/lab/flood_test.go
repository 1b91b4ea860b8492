package lab

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// attackedSite is the part of a site that a flood needs: the attacker and the ToR.
func attackedSite(t *testing.T) *Site {
	t.Helper()
	s := &Site{ID: "test" + randomHex(4), Dir: t.TempDir(), options: Options{Dir: t.TempDir()}}
	t.Cleanup(func() { must(t, s.Close()) })
	for _, role := range []string{"tor", "attacker"} {
		ns, err := makeNamespace(prefix + s.ID + "-" + role)
		must(t, err)
		ns.site, ns.role = s, role
		s.namespaces = append(s.namespaces, ns)
	}
	s.ToR, s.Attacker = s.namespaces[0], s.namespaces[1]
	must(t, s.ToR.veth("attacker", s.Attacker, "eth0"))
	return s
}

func TestAFloodIsBoundedAndACaptureSeesAllOfIt(t *testing.T) {
	s := attackedSite(t)
	capture, err := s.ToR.StartCapture("attacker", "\x08\x00\x45", "never sent")
	must(t, err)
	sent, err := Flood{Rate: 20_000, Duration: 200 * time.Millisecond}.Run(t.Context(), s)
	must(t, err)
	seen, err := capture.Stop()
	must(t, err)
	if sent.Packets == 0 || sent.Packets > uint64(20_000*sent.Took.Seconds()) {
		t.Errorf("sent %d packets in %s, want at most 20 thousand a second", sent.Packets, sent.Took)
	}
	// The kernel itself has a word to say on a new link: IPv6 neighbour discovery.
	if seen.Missed != 0 || seen.Frames < int(sent.Packets) || seen.Tunnel != 0 {
		t.Errorf("of %d packets the capture saw %+v", sent.Packets, seen)
	}
	// Three of four packets are IPv4 without options.
	if four := seen.Markers[0]; four < int(sent.Packets/4*3) || four > seen.Frames || seen.Markers[1] != 0 {
		t.Errorf("of %d packets the capture found %v by their bytes", sent.Packets, seen.Markers)
	}
}

func TestEveryPacketOfTheFloodIsWellFormedAndSpoofed(t *testing.T) {
	frames, err := attackedSite(t).floodFrames()
	must(t, err)
	kinds := map[gopacket.LayerType]int{}
	for i, frame := range frames {
		packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		if packet.ErrorLayer() != nil {
			t.Fatalf("packet %d: %v", i, packet.ErrorLayer().Error())
		}
		var ours bool
		switch ip := packet.NetworkLayer().(type) {
		case *layers.IPv4:
			ours = Attackers4.Contains(toAddr(ip.SrcIP))
		case *layers.IPv6:
			ours = Attackers6.Contains(toAddr(ip.SrcIP))
		}
		if !ours {
			t.Errorf("packet %d comes from %s", i, packet.NetworkLayer().NetworkFlow().Src())
		}
		kinds[packet.NetworkLayer().LayerType()]++
		kinds[packet.TransportLayer().LayerType()]++
	}
	want := map[gopacket.LayerType]int{
		layers.LayerTypeIPv4: 768, layers.LayerTypeIPv6: 256, layers.LayerTypeTCP: 512, layers.LayerTypeUDP: 512,
	}
	for kind, n := range want {
		if kinds[kind] != n {
			t.Errorf("%d packets of %s, want %d", kinds[kind], kind, n)
		}
	}
}

func toAddr(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func TestTheTunnelsPacketsAreThoseOfItsPort(t *testing.T) {
	frame := func(change func(ip *layers.IPv4, udp *layers.UDP)) []byte {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: Gateway4.AsSlice(), DstIP: []byte{198, 18, 0, 6}}
		udp := &layers.UDP{SrcPort: TunnelPort, DstPort: TunnelPort}
		change(ip, udp)
		buffer := gopacket.NewSerializeBuffer()
		must(t, gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true},
			&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: unix.ETH_P_IP}, ip, udp))
		return buffer.Bytes()
	}
	cases := map[string]struct {
		change func(ip *layers.IPv4, udp *layers.UDP)
		want   bool
	}{
		"out":          {func(*layers.IPv4, *layers.UDP) {}, true},
		"in":           {func(ip *layers.IPv4, _ *layers.UDP) { ip.SrcIP, ip.DstIP = ip.DstIP, ip.SrcIP }, true},
		"another port": {func(_ *layers.IPv4, udp *layers.UDP) { udp.SrcPort, udp.DstPort = 53, 53 }, false},
		"another host": {func(ip *layers.IPv4, _ *layers.UDP) { ip.SrcIP = []byte{198, 18, 0, 9} }, false},
		"not UDP":      {func(ip *layers.IPv4, _ *layers.UDP) { ip.Protocol = layers.IPProtocolTCP }, false},
	}
	for name, c := range cases {
		whole := frame(c.change)
		if got := toTunnel(whole); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		for n := range 14 + 20 + 4 {
			if toTunnel(whole[:n]) {
				t.Errorf("%s, cut to %d bytes, is taken for the tunnel's", name, n)
			}
		}
	}
}
