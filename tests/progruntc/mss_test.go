package progruntc_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// clamping has both tunnels clamp.
func clamping(s *tc.State) {
	for i := range s.Interfaces {
		s.Interfaces[i].ClampMSS = s.Interfaces[i].Role == tc.RoleTunnel
	}
}

// options gives the TCP segment of a frame, which has none, these options.
func options(t *testing.T, line string, list ...byte) []byte {
	t.Helper()
	f := frameOf(t, line)
	p := parseFrame(f)
	out := append(bytes.Clone(f[:p.l4+20]), list...)
	out[p.l4+12] = byte(5+len(list)/4) << 4
	at := p.l3 + 2
	if p.src.Is6() {
		at = p.l3 + 4
	}
	binary.BigEndian.PutUint16(out[at:], binary.BigEndian.Uint16(out[at:])+uint16(len(list)))
	return fix(out)
}

// left runs a frame through a hook's live program and returns the verdict and the frame as it left.
func (s *site) left(t *testing.T, g *pin.Generation, at string, mark uint32, frame []byte) (uint32, []byte) {
	t.Helper()
	name, device := s.program(t, g, at)
	frame = bytes.Clone(frame)
	copy(frame, device.HardwareAddr)
	return run(t, g.Programs[name], skBuff{Mark: mark, Ifindex: uint32(device.Index)}, frame)
}

// mssOf is the value of an MSS option at an offset in the TCP header.
func mssOf(frame []byte, at int) uint16 {
	return binary.BigEndian.Uint16(frame[parseFrame(frame).l4+at+2:])
}

func TestTheMSSOfSYNsIsWhatTheTunnelsMTUCarries(t *testing.T) {
	s := newSite(t, clamping, open(tc.RoleTunnel, tc.RoleWorkload))
	g := s.live(t)
	const out4, out6 = "tcp 10.0.1.10:4000 > 10.20.0.9:53", "tcp [fd00:1::10]:4000 > [fd00:20::9]:53"
	const in4, in6 = "tcp 10.20.0.9:4000 > 10.0.1.10:80", "tcp [fd00:20::9]:4000 > [fd00:1::10]:80"
	for _, test := range []struct {
		at, line string
		mtu      int
		mss      uint16
		want     uint16
	}{
		{"tap0 egress", out4 + " flags=S", 1300, 1460, 1260},
		{"tap0 egress", out4 + " flags=SA", 1300, 1460, 1260},
		{"tap0 egress", out6 + " flags=S", 1300, 1440, 1240},
		{"tap0 egress", out6 + " flags=SA", 1300, 8940, 1240},
		{"tap0 ingress", in4 + " flags=S", 1300, 1460, 1260},
		{"tap0 ingress", in4 + " flags=SEW", 1300, 65535, 1260},
		{"tap0 ingress", in6 + " flags=S", 1300, 1440, 1240},
		{"tap0 egress", out4 + " flags=S", 1300, 1261, 1260},
		{"tap0 egress", out4 + " flags=S", 1300, 1260, 1260},
		{"tap0 egress", out4 + " flags=S", 1300, 536, 536},
		{"tap0 egress", out4 + " flags=S", 1420, 1460, 1380}, // the MTU as it is now
		{"tap0 egress", out6 + " flags=S", 1420, 1460, 1360},
		{"tap0 egress", out4 + " flags=S", 68, 1460, 28}, // the least of IPv4
		{"tap0 egress", out4 + " flags=S", 9000, 1460, 1460},
	} {
		what := fmt.Sprintf("%s %s mss %d, mtu %d", test.at, test.line, test.mss, test.mtu)
		setMTU(t, s.gateway, "tap0", test.mtu)
		frame := frameOf(t, fmt.Sprintf("%s mss=%d", test.line, test.mss))
		mark := uint32(abi.MarkJudged)
		if test.at == "tap0 ingress" {
			mark = 0
		}
		s.clearFlows(t)
		verdict, left := s.left(t, g, test.at, mark, frame)
		if verdict == tcxDrop {
			t.Errorf("%s: dropped", what)
		}
		if got := mssOf(left, 20); got != test.want {
			t.Errorf("%s: left with %d, want %d", what, got, test.want)
		}
		if err := wrongSums(left); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		want := moved(frame, verdict == tcxRedirect)
		binary.BigEndian.PutUint16(want[parseFrame(want).l4+22:], test.want)
		if diff := cmp.Diff(fix(want)[14:], left[14:]); diff != "" {
			t.Errorf("%s: the frame became\n%s", what, diff)
		}
	}
}

func TestTheMSSIsFoundWhereverItStands(t *testing.T) {
	s := newSite(t, clamping)
	g := s.live(t)
	setMTU(t, s.gateway, "tap0", 1300)
	const high, low = 1460 >> 8, 1460 & 0xff
	for _, test := range []struct {
		name    string
		list    []byte
		at      int // in the TCP header; 0: nothing is to change
		reaches uint16
	}{
		{"first", []byte{2, 4, high, low}, 20, 1260},
		{"at an odd byte", []byte{1, 2, 4, high, low, 1, 1, 1}, 21, 1260},
		{"at another odd byte", []byte{1, 1, 1, 2, 4, high, low, 0}, 23, 1260},
		{"behind others", []byte{4, 2, 3, 3, 7, 1, 1, 1, 2, 4, high, low}, 28, 1260},
		{"last of forty bytes", append(bytes.Repeat([]byte{1}, 36), 2, 4, high, low), 56, 1260},
		{"behind unknown ones", append([]byte{254, 10, 2, 4, 0xff, 0xff, 0, 0, 0, 0, 1, 1}, 2, 4, high, low), 32, 1260},
		{"behind the end of the list", []byte{0, 0, 0, 0, 2, 4, high, low}, 0, 0},
		{"of a wrong length", []byte{2, 3, high, low}, 0, 0},
		{"behind an option of no length", []byte{254, 0, 1, 1, 2, 4, high, low}, 0, 0},
		{"behind one that is longer than the header", []byte{254, 60, 1, 1, 2, 4, high, low}, 0, 0},
		{"nowhere", []byte{4, 2, 1, 1}, 0, 0},
		{"cut off", []byte{1, 1, 2, 4}, 0, 0},
		{"no options", nil, 0, 0},
	} {
		for _, line := range []string{"tcp 10.0.1.10:4000 > 10.20.0.9:53 flags=S", "tcp [fd00:1::10]:4000 > [fd00:20::9]:53 flags=SA"} {
			frame := options(t, line, test.list...)
			verdict, left := s.left(t, g, "tap0 egress", abi.MarkJudged, frame)
			if err := wrongSums(left); err != nil || verdict != tcxNext {
				t.Errorf("%s, %s: returned %d, %v", test.name, line, int32(verdict), err)
			}
			want := bytes.Clone(frame)
			if p := parseFrame(frame); test.at != 0 {
				binary.BigEndian.PutUint16(want[p.l4+test.at+2:], test.reaches-uint16(p.l4-p.l3-20)) // 20 more of IPv6's header
				want = fix(want)
			}
			if diff := cmp.Diff(want[14:], left[14:]); diff != "" {
				t.Errorf("%s, %s: the frame became\n%s", test.name, line, diff)
			}
		}
	}
}

func TestNothingButTheSYNsOfAClampingTunnelIsChanged(t *testing.T) {
	s := newSite(t, clamping, func(want *tc.State) {
		for i := range want.Interfaces {
			want.Interfaces[i].ClampMSS = want.Interfaces[i].Name == "tap0"
		}
	})
	setMTU(t, s.gateway, "tap0", 1300)
	setMTU(t, s.gateway, "uplink", 1300)
	g := s.live(t)
	syn := func(line string) []byte { return options(t, line, 2, 4, 1460>>8, 1460&0xff) }
	const out = "tcp 10.0.1.10:4000 > 10.20.0.9:53 flags="
	for _, test := range []struct {
		name, at string
		mark     uint32
		frame    []byte
		verdict  uint32
	}{
		{"an ACK", "tap0 egress", abi.MarkJudged, syn(out + "A"), tcxNext},
		{"a FIN", "tap0 egress", abi.MarkJudged, syn(out + "FA"), tcxNext},
		{"at the uplink", "uplink egress", abi.MarkJudged, syn("tcp 10.0.1.10:4000 > 198.51.100.7:53 flags=S"), tcxNext},
		{"where a workload sends it, before the tunnel", "wl1 ingress", 0, syn(out + "S"), tcxRedirect},
		{"what is dropped", "tap0 ingress", 0, syn("tcp 10.20.0.9:4000 > 10.0.1.10:81 flags=S"), tcxDrop},
	} {
		verdict, left := s.left(t, g, test.at, test.mark, test.frame)
		if verdict != test.verdict {
			t.Errorf("%s: returned %d, want %d", test.name, int32(verdict), int32(test.verdict))
		}
		if got := mssOf(left, 20); got != 1460 {
			t.Errorf("%s: the MSS became %d", test.name, got)
		}
	}
	udp := frameOf(t, "udp 10.0.1.10:4000 > 10.20.0.9:53 len=100")
	copy(udp[42:], []byte{0x50, 2, 0, 0, 2, 4, 0xff, 0xff}) // as a SYN would have it
	if _, left := s.left(t, g, "tap0 egress", abi.MarkJudged, udp); !bytes.Equal(left[14:], udp[14:]) {
		t.Errorf("a datagram became %x, want %x", left, udp)
	}
	s.converge(t, baseline())
	if _, left := s.left(t, s.live(t), "tap0 egress", abi.MarkJudged, syn(out+"S")); mssOf(left, 20) != 1460 {
		t.Error("a tunnel that does not clamp has changed the MSS")
	}
}

// TestASYNIsClampedInItsFirstFragment: a fragment's checksum covers what is not there, and stays right by the difference.
func TestASYNIsClampedInItsFirstFragment(t *testing.T) {
	s := newSite(t, clamping)
	setMTU(t, s.gateway, "tap0", 1300)
	whole := frameOf(t, "tcp 10.0.1.10:4000 > 10.20.0.9:53 flags=S mss=1460 len=1000")
	first := bytes.Clone(whole)
	first[14+6] |= 0x20 // more fragments follow
	binary.BigEndian.PutUint16(first[14+10:], 0)
	binary.BigEndian.PutUint16(first[14+10:], checksum(first[14:34]))
	_, left := s.left(t, s.live(t), "tap0 egress", abi.MarkJudged, first)
	copy(left[14:34], whole[14:34])
	if err := wrongSums(left); err != nil || mssOf(left, 20) != 1260 {
		t.Errorf("MSS %d, %v", mssOf(left, 20), err)
	}
}

func TestExplainSaysWhatTheMSSBecomes(t *testing.T) {
	s := newSite(t, clamping)
	for name, mtu := range map[string]int{"tap0": 1300, "tun0": 1400} {
		setMTU(t, s.gateway, name, mtu)
	}
	for _, test := range []struct {
		to, line string
		mss      uint16
	}{
		{"tap0", "tcp 10.0.1.10:9 > 10.20.0.9:80 flags=S mss=1460", 1260},
		{"tun0", "tcp 10.0.1.10:9 > 10.21.0.9:80 flags=S mss=1460", 1360},
		{"tun0", "tcp 10.0.1.10:9 > 10.21.0.9:80 flags=S mss=1360", 0},
		{"tun0", "tcp 10.0.1.10:9 > 10.21.0.9:80 flags=S", 0},
	} {
		got, err := s.ExplainRedirected(t.Context(), test.to, "wl1", frameOf(t, test.line))
		if err != nil || got.MSS != test.mss || got.Reason != abi.ReasonJudged {
			t.Errorf("%s: MSS %d for reason %s, want %d: %v", test.line, got.MSS, got.Reason, test.mss, err)
		}
	}
}
