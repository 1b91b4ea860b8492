package progrun_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

const cookieID = 50

// protecting answers SYNs to port 443 of the box; what else matches the rule is accepted.
func protecting() xdp.Generation {
	g := generation(classify.Drop, classify.Rule{ID: cookieID, To: prefixes(dst4.String()+"/32", dst6.String()+"/128", "203.0.113.10/32"),
		Protocol: 6, Ports: []classify.PortRange{{First: 443, Last: 443}, {First: 8443, Last: 8443}}, Action: classify.SYNCookie})
	g.Self = []netip.Addr{dst4, dst6}
	g.SYNListeners = []netip.AddrPort{netip.AddrPortFrom(dst4, 443), netip.AddrPortFrom(dst6, 443)}
	g.Workloads = []netip.Addr{netip.MustParseAddr("203.0.113.20"), netip.MustParseAddr("2001:db8::20")}
	return g
}

func monotonic(t testing.TB) uint64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return uint64(now.Nano())
}

// listener is what the program knows of one.
type listener struct {
	t   testing.TB
	m   *ebpf.Map
	key abi.SYNListenerKey
}

func (s *site) listener(t testing.TB, at netip.AddrPort) listener {
	t.Helper()
	l := listener{t, s.openMap(t, "syn-listeners", 2), abi.SYNListenerKey{Addr: at.Addr().As16()}}
	binary.BigEndian.PutUint16(l.key.Port[:], at.Port())
	return l
}

func (l listener) get() (v abi.SYNListener) {
	l.t.Helper()
	if err := l.m.Lookup(l.key, &v); err != nil {
		l.t.Fatal(err)
	}
	return v
}

func (l listener) put(v abi.SYNListener) {
	l.t.Helper()
	if err := l.m.Put(l.key, v); err != nil {
		l.t.Fatal(err)
	}
}

const learned = abi.ListenerTimestamps | abi.ListenerSACK | abi.ListenerWindowScale

// busy is a listener that answers and had its turn, for as long as a test takes: both are yet to come.
func (l listener) busy() {
	l.t.Helper()
	now := monotonic(l.t) + uint64(time.Hour)
	l.put(abi.SYNListener{PassedNs: now, AnsweredNs: now, MSS: 1400, Window: 64240, WindowScale: 9, Flags: learned})
}

// The options of a SYN as Linux sends them.
var (
	optMSS    = []byte{2, 4, 0x05, 0xb4}
	optSACK   = []byte{4, 2}
	optStamps = []byte{8, 10, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0}
	optScale  = []byte{1, 3, 3, 7}
	linuxSYN  = join(optMSS, optSACK, optStamps, optScale)
)

func syn(options ...byte) []byte {
	s := tcp(40000, 443, options...)
	binary.BigEndian.PutUint32(s[4:], 0xfffffffe)
	return s
}

func flagged(flags byte, segment []byte) []byte { segment[13] = flags; return segment }

// verdict runs the live program, which may change the frame.
func (s *site) verdict(frame []byte) (uint32, error) {
	return s.live.Run(&ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256),
		Context: xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(s.uplink)}})
}

// answer runs the live program on a SYN and returns the frame that goes back, as bytes and parsed.
func (s *site) answer(t testing.TB, frame []byte) ([]byte, gopacket.Packet) {
	t.Helper()
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, 256), Context: xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(s.uplink)}}
	verdict, err := s.live.Run(opts)
	if err != nil {
		t.Fatal(err)
	}
	if verdict != xdpTX {
		t.Fatalf("the verdict on %x is %d, want XDP_TX", frame, verdict)
	}
	p := gopacket.NewPacket(opts.DataOut, layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil {
		t.Fatalf("%x: %v", opts.DataOut, p.ErrorLayer().Error())
	}
	return opts.DataOut, p
}

// verified fails where a checksum is wrong: what gopacket computes over the same layers must be the same bytes.
func verified(t testing.TB, name string, frame []byte, p gopacket.Packet) {
	t.Helper()
	var all []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		switch v := l.(type) {
		case *layers.TCP:
			if err := v.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
			all = append(all, v)
		case gopacket.SerializableLayer:
			all = append(all, v)
		}
	}
	again := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(again, gopacket.SerializeOptions{ComputeChecksums: true, FixLengths: true}, all...); err != nil {
		t.Fatal(err)
	}
	want := again.Bytes()
	for len(want) < 60 {
		want = append(want, 0)
	}
	if d := cmp.Diff(want, frame); d != "" {
		t.Errorf("%s (- gopacket, + sent):\n%s", name, d)
	}
}

type said struct {
	MSS, Window  uint16
	SACK, Stamps bool
	Scale        int // -1: none
	Echo         uint32
	Bits         uint32 // what the cookie keeps in TSval
	Options      int    // bytes
}

func saidBy(t testing.TB, tcp *layers.TCP) said {
	t.Helper()
	out := said{Window: tcp.Window, Scale: -1, Options: int(tcp.DataOffset)*4 - 20}
	for _, o := range tcp.Options {
		switch o.OptionType {
		case layers.TCPOptionKindMSS:
			out.MSS = binary.BigEndian.Uint16(o.OptionData)
		case layers.TCPOptionKindSACKPermitted:
			out.SACK = true
		case layers.TCPOptionKindWindowScale:
			out.Scale = int(o.OptionData[0])
		case layers.TCPOptionKindTimestamps:
			stamp := binary.BigEndian.Uint32(o.OptionData)
			out.Stamps, out.Echo, out.Bits = true, binary.BigEndian.Uint32(o.OptionData[4:]), stamp&0x3f
			now := uint32(monotonic(t) / uint64(time.Millisecond))
			if age := int32(now - stamp); age < 0 || age > 10_000 {
				t.Errorf("TSval is %d ms ago", age)
			}
		}
	}
	return out
}

func TestTheAnswerToASYNIsAsItsListenersWouldBe(t *testing.T) {
	s := newSite(t, protecting())
	s.listener(t, netip.AddrPortFrom(dst4, 443)).busy()
	s.listener(t, netip.AddrPortFrom(dst6, 443)).busy()
	for _, c := range []struct {
		name    string
		options []byte
		want    said
	}{
		{"as Linux sends it", linuxSYN, said{MSS: 1400, Window: 64240, SACK: true, Stamps: true, Scale: 9, Echo: 0x11223344, Bits: 0x17, Options: 20}},
		{"without options", nil, said{MSS: 1400, Window: 64240, Scale: -1, Options: 4}},
		{"MSS alone", optMSS, said{MSS: 1400, Window: 64240, Scale: -1, Options: 4}},
		{"no timestamps: nothing else survives", join(optMSS, optScale, optSACK, []byte{1, 1}), said{MSS: 1400, Window: 64240, Scale: -1, Options: 4}},
		{"timestamps alone", join([]byte{1, 1}, optStamps), said{MSS: 1400, Window: 64240, Stamps: true, Scale: -1, Echo: 0x11223344, Bits: 0x0f, Options: 16}},
		{"timestamps and SACK", join(optSACK, optStamps), said{MSS: 1400, Window: 64240, Stamps: true, SACK: true, Scale: -1, Echo: 0x11223344, Bits: 0x1f, Options: 16}},
		{"a window scale beyond what is valid", join(optStamps, []byte{3, 3, 15, 1, 1, 1}), said{MSS: 1400, Window: 64240, Stamps: true, Scale: 9, Echo: 0x11223344, Bits: 0x0e, Options: 20}},
		{"an unknown option", join([]byte{254, 6, 1, 2, 3, 4}, optStamps), said{MSS: 1400, Window: 64240, Stamps: true, Scale: -1, Echo: 0x11223344, Bits: 0x0f, Options: 16}},
		{"a cookie of Fast Open", join([]byte{34, 10, 1, 2, 3, 4, 5, 6, 7, 8}, optStamps), said{MSS: 1400, Window: 64240, Stamps: true, Scale: -1, Echo: 0x11223344, Bits: 0x0f, Options: 16}},
		{"a request for one, as Linux sends it", join(linuxSYN, []byte{34, 2, 1, 1}), said{MSS: 1400, Window: 64240, SACK: true, Stamps: true, Scale: 9, Echo: 0x11223344, Bits: 0x17, Options: 20}},
		{"Multipath TCP", join(optMSS, optSACK, optStamps, optScale, []byte{30, 4, 0, 1}), said{MSS: 1400, Window: 64240, SACK: true, Stamps: true, Scale: 9, Echo: 0x11223344, Bits: 0x17, Options: 20}},
		{"another order", join([]byte{1}, []byte{3, 3, 7}, optStamps, optSACK, optMSS), said{MSS: 1400, Window: 64240, SACK: true, Stamps: true, Scale: 9, Echo: 0x11223344, Bits: 0x17, Options: 20}},
		{"what stands behind the end of the list", join(optStamps, []byte{1, 0}, optScale), said{MSS: 1400, Window: 64240, Stamps: true, Scale: -1, Echo: 0x11223344, Bits: 0x0f, Options: 16}},
		{"SACK of another length", join([]byte{4, 3, 1, 1}, optStamps, []byte{1, 1}), said{MSS: 1400, Window: 64240, Stamps: true, Scale: -1, Echo: 0x11223344, Bits: 0x0f, Options: 16}},
		{"an option that overruns", join(optStamps, []byte{3, 9}), said{MSS: 1400, Window: 64240, Stamps: true, Scale: -1, Echo: 0x11223344, Bits: 0x0f, Options: 16}},
		{"forty bytes", join(linuxSYN, make([]byte, 20)), said{MSS: 1400, Window: 64240, SACK: true, Stamps: true, Scale: 9, Echo: 0x11223344, Bits: 0x17, Options: 20}},
	} {
		for _, vlans := range [][]int{nil, {7}, {7, 8}} {
			for _, payload := range [][]byte{nil, make([]byte, 100)} {
				segment := join(syn(c.options...), payload)
				for family, frame := range map[string][]byte{
					"IPv4": ether(typeIP4, ip4(6, nil, segment), vlans...), "IPv6": ether(typeIP6, ip6(6, 64, src6, segment), vlans...),
				} {
					name := fmt.Sprintf("%s, %s, VLANs %v, %d bytes of data", c.name, family, vlans, len(payload))
					sent, p := s.answer(t, frame)
					s.checkAnswer(t, name, p, len(vlans), c.want)
					verified(t, name, sent, p)
				}
			}
		}
	}
}

func (s *site) checkAnswer(t testing.TB, name string, p gopacket.Packet, vlans int, want said) {
	t.Helper()
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if eth.SrcMAC.String() != "02:00:00:00:00:02" || eth.DstMAC.String() != "02:00:00:00:00:01" {
		t.Errorf("%s: from %s to %s", name, eth.SrcMAC, eth.DstMAC)
	}
	tags := 0
	for _, l := range p.Layers() {
		if l.LayerType() == layers.LayerTypeDot1Q {
			tags++
		}
	}
	if tags != vlans {
		t.Errorf("%s: %d tags", name, tags)
	}
	from, to := dst4.String(), src4.String()
	if ip, ok := p.NetworkLayer().(*layers.IPv4); ok {
		if ip.TTL != 64 || ip.Flags != layers.IPv4DontFragment || ip.TOS != 0 || ip.Id != 0 {
			t.Errorf("%s: %+v", name, ip)
		}
	} else {
		from, to = dst6.String(), src6.String()
		if ip := p.NetworkLayer().(*layers.IPv6); ip.HopLimit != 64 || ip.TrafficClass != 0 || ip.FlowLabel != 0 {
			t.Errorf("%s: %+v", name, ip)
		}
	}
	if f := p.NetworkLayer().NetworkFlow(); f.Src().String() != from || f.Dst().String() != to {
		t.Errorf("%s: %s", name, f)
	}
	h := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if h.SrcPort != 443 || h.DstPort != 40000 || h.Ack != 0xffffffff || !h.SYN || !h.ACK || h.FIN || h.RST || h.PSH || h.ECE || h.CWR || len(h.Payload) > 0 {
		t.Errorf("%s: %+v", name, h)
	}
	if d := cmp.Diff(want, saidBy(t, h)); d != "" {
		t.Errorf("%s (- wanted, + got):\n%s", name, d)
	}
}

func TestWhatIsNoSYNForAListenerOfOursPasses(t *testing.T) {
	s := newSite(t, protecting())
	l := s.listener(t, netip.AddrPortFrom(dst4, 443))
	s.listener(t, netip.AddrPortFrom(dst6, 443)).busy()
	l.busy()
	for flags := range 256 {
		frame := frame4(6, flagged(byte(flags), syn(linuxSYN...)))
		want := uint32(xdpPass)
		if flags&0x17 == 0x02 { // SYN without ACK, RST and FIN
			want = xdpTX
		}
		if got, err := s.verdict(frame); err != nil || got != want {
			t.Errorf("flags %#x: the verdict is %d, %v; want %d", flags, got, err, want)
		}
	}
	s.last = s.tally(t)
	plain := syn(linuxSYN...)
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"another address of the rule", to4("203.0.113.10", frame4(6, plain))},
		{"another port of the rule", frame4(6, tcp(1, 8443))},
		{"IPv4 options", ether(typeIP4, ip4(6, []byte{1, 1, 1, 0}, plain))},
		{"an IPv6 extension header", ether(typeIP6, ip6(60, 64, src6, extension(6, 0, plain)))},
		{"the first of several fragments", ether(typeIP4, ip4Fragment(6, 0x2000, nil, plain))},
		{"a signed one", frame4(6, syn(join([]byte{19, 18}, make([]byte, 16), []byte{1, 1})...))},
		{"one with TCP-AO", frame4(6, syn(join([]byte{29, 16}, make([]byte, 14))...))},
		{"from itself", from4(dst4.String(), frame4(6, plain))},
		{"from a workload's address", from4("203.0.113.20", frame4(6, plain))},
		{"from a workload's address over IPv6", ether(typeIP6, ip6(6, 64, netip.MustParseAddr("2001:db8::20"), plain))},
		{"from loopback", from4("127.0.0.1", frame4(6, plain))},
		{"from this network", from4("0.0.0.1", frame4(6, plain))},
		{"from a group", from4("224.0.0.1", frame4(6, plain))},
		{"from the broadcast address", from4("255.255.255.255", frame4(6, plain))},
		{"from no address", ether(typeIP6, ip6(6, 64, netip.IPv6Unspecified(), plain))},
		{"from loopback over IPv6", ether(typeIP6, ip6(6, 64, netip.IPv6Loopback(), plain))},
		{"from a group over IPv6", ether(typeIP6, ip6(6, 64, netip.MustParseAddr("ff02::1"), plain))},
		{"to another host, which the NIC takes all the same", append([]byte{2, 0, 0, 0, 0, 3}, frame4(6, plain)[6:]...)},
		{"in a broadcast frame", append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, frame4(6, plain)[6:]...)},
	} {
		s.check(t, c.name, c.frame, abi.ReasonSYNCookiePass)
	}
	if v := l.get(); v.PassedNs != v.AnsweredNs {
		t.Error("what the listener could not answer took its turn")
	}
}

func TestAListenerSeesASYNEachSecondAndAllWhileItIsSilent(t *testing.T) {
	s := newSite(t, protecting())
	l := s.listener(t, netip.AddrPortFrom(dst4, 443))
	frame := frame4(6, syn(linuxSYN...))
	answers := func(n int) (count int) {
		t.Helper()
		for range n {
			verdict, err := s.verdict(frame)
			if err != nil {
				t.Fatal(err)
			}
			if verdict == xdpTX {
				count++
			}
		}
		return count
	}
	if got := answers(10); got != 0 {
		t.Errorf("for a listener that was never heard of, %d of 10 SYNs were answered", got)
	}
	const later, never = time.Hour, -1 << 62
	for _, c := range []struct {
		name             string
		passed, answered time.Duration // from now
		want             int
	}{
		{"its turn is past", later, 0, 10},
		{"its turn is due", -time.Second, 0, 9},
		{"its turn is long due", never, 0, 9},
		{"it was heard of a while ago", later, -5 * time.Second, 10},
		{"it is silent", later, -11 * time.Second, 0},
		{"it answers, as another CPU sees, in a moment", later, time.Second / 2, 10},
	} {
		var got int
		for tries := 0; tries < 10; tries++ {
			now := monotonic(t)
			at := func(d time.Duration) uint64 { return uint64(max(0, int64(now)+int64(d))) }
			l.put(abi.SYNListener{PassedNs: at(c.passed), AnsweredNs: at(c.answered), MSS: 1400, Window: 1, Flags: learned})
			got = answers(10)
			if monotonic(t)-now < uint64(time.Second) { // else its turn may have come again
				break
			}
		}
		if got != c.want {
			t.Errorf("%s: %d of 10 SYNs were answered, want %d", c.name, got, c.want)
		}
	}
	for flags, want := range map[uint8]int{learned: 20, learned &^ abi.ListenerSACK: 0, learned &^ abi.ListenerWindowScale: 0, 0: 0} {
		hence := monotonic(t) + uint64(later)
		l.put(abi.SYNListener{PassedNs: hence, AnsweredNs: hence, MSS: 1400, Window: 1, Flags: flags})
		if got := answers(20); got != want {
			t.Errorf("where %#x is known of the listener, %d of 20 SYNs with all options were answered, want %d", flags, got, want)
		}
	}
}

// TestAListenerIsAnsweredForWithoutWhatItRefuses: RFC 2018 and RFC 7323 leave an answer without an option that was offered free.
func TestAListenerIsAnsweredForWithoutWhatItRefuses(t *testing.T) {
	const none, both = uint8(0), uint8(abi.ListenerSACK | abi.ListenerWindowScale)
	g, at := protecting(), netip.AddrPortFrom(dst4, 443)
	g.Refuses = map[netip.AddrPort]uint8{at: abi.ListenerSACK}
	s := newSite(t, g)
	l := s.listener(t, at)
	for _, c := range []struct {
		refused, known uint8
		want           said
	}{
		{abi.ListenerSACK, learned &^ abi.ListenerSACK, said{Stamps: true, Scale: 9, Bits: 0x07, Options: 20}},
		{abi.ListenerWindowScale, learned &^ abi.ListenerWindowScale, said{Stamps: true, SACK: true, Scale: -1, Bits: 0x1f, Options: 16}},
		{both, abi.ListenerTimestamps, said{Stamps: true, Scale: -1, Bits: 0x0f, Options: 16}},
		{both, learned, said{Stamps: true, Scale: -1, Bits: 0x0f, Options: 16}}, // a setting that has just changed
		{none, learned, said{Stamps: true, SACK: true, Scale: 9, Bits: 0x17, Options: 20}},
	} {
		g.Refuses = map[netip.AddrPort]uint8{at: c.refused}
		s.load(t, g)
		l.busy()
		v := l.get()
		v.Flags, v.Refused = c.known, c.refused
		l.put(v)
		c.want.MSS, c.want.Window, c.want.Echo = 1400, 64240, 0x11223344
		name := fmt.Sprintf("refuses %d, shows %d", c.refused, c.known)
		sent, p := s.answer(t, frame4(6, syn(linuxSYN...)))
		s.checkAnswer(t, name, p, 0, c.want)
		verified(t, name, sent, p)
	}
	l.busy()
	g.Refuses = map[netip.AddrPort]uint8{at: abi.ListenerSACK}
	want := l.get()
	want.Refused = abi.ListenerSACK
	s.load(t, g)
	if got := l.get(); got != want {
		t.Errorf("where a setting changed, %+v is known, want %+v", got, want)
	}
}

func TestExplainAnswersASYNAndTakesNobodysTurn(t *testing.T) {
	s := newSite(t, protecting())
	l := s.listener(t, netip.AddrPortFrom(dst4, 443))
	frame := frame4(6, syn(linuxSYN...))
	l.busy()
	busy := l.get()
	s.check(t, "a SYN of which the listener need not know", frame4(6, flagged(0x12, syn())), abi.ReasonSYNCookiePass)
	e, err := s.Explain(t.Context(), "uplink", frame)
	if want := (xdp.Explanation{Verdict: abi.FateAnswer, Reason: abi.ReasonSYNCookie, Rule: cookieID, Policy: int(abi.PolicyIngress), Ifindex: uint32(s.uplink)}); err != nil || !cmp.Equal(e, want) {
		t.Errorf("explain says %+v, %v; want %+v", e, err, want)
	}
	if got := l.get(); got != busy {
		t.Errorf("%+v became %+v", busy, got)
	}
	due := busy
	due.PassedNs = 0
	l.put(due)
	for range 2 {
		if said := s.explain(t, s.uplink, frame); abi.Reason(said.Reason) != abi.ReasonSYNCookiePass {
			t.Errorf("a SYN whose turn it is: %s", abi.Reason(said.Reason))
		}
	}
	if got := l.get(); got != due {
		t.Errorf("%+v became %+v", due, got)
	}
}

func TestWhatIsKnownOfAListenerOutlivesAGenerationAndGoesWithItsRule(t *testing.T) {
	s := newSite(t, protecting())
	l := s.listener(t, netip.AddrPortFrom(dst4, 443))
	l.busy()
	busy := l.get()
	g := protecting()
	g.Ingress.Default = classify.Accept
	g.SYNListeners = []netip.AddrPort{netip.AddrPortFrom(dst4, 443), netip.AddrPortFrom(dst4, 8443)}
	s.load(t, g)
	if got := l.get(); got != busy {
		t.Errorf("%+v became %+v", busy, got)
	}
	s.listener(t, netip.AddrPortFrom(dst4, 8443)).get()
	s.load(t, generation(classify.Accept))
	var v abi.SYNListener
	if err := l.m.Lookup(l.key, &v); err == nil {
		t.Error("without the rule there is still an entry")
	}
}
