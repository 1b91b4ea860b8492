package child

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// echoed turns a request into what its target answers, and says from where to where it went.
func echoed(t *testing.T, request []byte) (answer []byte, way string) {
	t.Helper()
	first := layers.LayerTypeIPv4
	if request[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(request, first, gopacket.Default)
	if fault := p.ErrorLayer(); fault != nil {
		t.Fatal(fault.Error())
	}
	for _, layer := range p.Layers() {
		if l, ok := layer.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			_ = l.SetNetworkLayerForChecksum(p.NetworkLayer())
		}
	}
	if err, bad := p.VerifyChecksums(); err != nil || len(bad) > 0 {
		t.Errorf("checksums: %v, %v", bad, err)
	}
	source, destination := p.NetworkLayer().NetworkFlow().Endpoints()
	answer = append([]byte(nil), request...)
	if first == layers.LayerTypeIPv4 {
		copy(answer[12:], destination.Raw())
		copy(answer[16:], source.Raw())
		answer[20] = layers.ICMPv4TypeEchoReply
	} else {
		copy(answer[8:], destination.Raw())
		copy(answer[24:], source.Raw())
		answer[40] = layers.ICMPv6TypeEchoReply
	}
	return answer, fmt.Sprint(source, " > ", destination)
}

func TestRequestsComeFromTheAddressThatTheKernelWouldTakeAndAnswersEndHere(t *testing.T) {
	n := newNetwork(t, "198.18.0.1", "198.18.0.2", "2001:db8::1")
	lo := n.lo.Attrs().Index
	route := &netlink.Route{LinkIndex: lo, Dst: prefix(t, "192.0.2.0/24"), Src: netip.MustParseAddr("198.18.0.2").AsSlice()}
	if err := n.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	if err := n.RouteAdd(&netlink.Route{LinkIndex: lo, Dst: prefix(t, "fd00::/64")}); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{
		"192.0.2.7": "198.18.0.2", // the route says so
		"10.1.2.3":  "198.18.0.1", // without a route, the first address of the interface
		"fd00::7":   "2001:db8::1",
	} {
		var request []byte
		n.Do(t, func() error {
			p := &prober{sources: sources{link: lo}}
			var err error
			request, err = p.request(nonceOf(7), Probe{netip.MustParseAddr(to), 1<<32 | 5})
			return err
		})
		answer, way := echoed(t, request)
		if way != want+" > "+to {
			t.Errorf("the request goes %s", way)
		}
		if tag, ok := echoReply(answer, nonceOf(7)); !ok || tag != 1<<32|5 {
			t.Errorf("%s: the answer is %d, %v", to, tag, ok)
		}
		if _, ok := echoReply(request, nonceOf(7)); ok {
			t.Errorf("%s: the request counts as an answer", to)
		}
		if _, ok := echoReply(answer, nonceOf(8)); ok {
			t.Errorf("%s: the answer counts as one to another daemon", to)
		}
	}
	n.Do(t, func() error {
		var said strings.Builder
		p := &prober{gate: newGate(tuntest.NewChannelTUN().TUN()), sources: sources{link: lo}}
		err := p.probe(fmt.Sprintf("%x", nonceOf(7)), []string{"2001:db8:1::1=9"}, &said)
		if want := fmt.Sprintf("9=%d\n", int(unix.ENETUNREACH)); err != nil || said.String() != want {
			t.Errorf("where there is no route the process says %q, %v", said.String(), err)
		}
		return nil
	})
}

func TestARequestForWhichThereIsNoRoomIsRefused(t *testing.T) {
	n := newNetwork(t, "198.18.0.1")
	var said strings.Builder
	p := &prober{gate: newGate(tuntest.NewChannelTUN().TUN()), sources: sources{link: n.lo.Attrs().Index}}
	p.hold(time.Minute)
	defer p.release()
	p.size = maxKept - 2*(20+echoLen)
	n.Do(t, func() error {
		return p.probe(fmt.Sprintf("%x", nonceOf(7)), []string{"10.0.0.1=1", "10.0.0.2=2", "10.0.0.3=3", "10.0.0.4=4"}, &said)
	})
	if want := fmt.Sprintf("3=%d\n4=%[1]d\n", int(unix.ENOBUFS)); said.String() != want || len(p.kept) != 2 {
		t.Errorf("with room for two the process says %q, want %q, and keeps %d", said.String(), want, len(p.kept))
	}
}

func TestAnAnswerIsOneForAWhileAndOnce(t *testing.T) {
	var d due
	at := time.Now()
	d.add([]uint64{1, 2, 3}, at)
	if !d.take(1) || d.take(1) || d.take(4) {
		t.Error("an answer counts twice, or without a request")
	}
	d.add(nil, at.Add(lapse))
	if !d.take(2) {
		t.Error("a late answer is none")
	}
	d.add([]uint64{5}, at.Add(2*lapse))
	if d.take(3) || !d.take(5) {
		t.Error("what was not answered is kept")
	}
}

func prefix(t *testing.T, s string) *net.IPNet {
	t.Helper()
	_, p, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAnswersAreToldAndNothingElseIsKeptFromTheTUN sends what comes out of a tunnel through Write.
func TestAnswersAreToldAndNothingElseIsKeptFromTheTUN(t *testing.T) {
	out := tuntest.NewChannelTUN()
	lines := make(chan string, 10)
	p := &prober{gate: newGate(out.TUN()), sources: sources{link: 1}, say: func(line string) { lines <- line }}
	request := func(n nonce, tag uint64) []byte {
		b, err := echoRequest(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), n, tag)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	answer := func(n nonce, tag uint64) []byte {
		b, _ := echoed(t, request(n, tag))
		return b
	}
	short := answer(nonceOf(1), 9)[:40]
	write := func(packets ...[]byte) {
		bufs := make([][]byte, len(packets))
		for i, b := range packets {
			bufs[i] = append(make([]byte, 16), b...)
		}
		if _, err := p.Write(bufs, 16); err != nil {
			t.Error(err)
		}
	}
	passes := func(want ...[]byte) {
		t.Helper()
		for _, w := range want {
			select {
			case got := <-out.Inbound:
				if string(got) != string(w) {
					t.Fatalf("%x passes, want %x", got, w)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%x is kept from the TUN", w)
			}
		}
	}
	go write(answer(nonceOf(1), 1), request(nonceOf(1), 2))
	passes(answer(nonceOf(1), 1), request(nonceOf(1), 2)) // nobody has asked yet

	if err := p.probe(fmt.Sprintf("%x", nonceOf(1)), nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	p.expect([]uint64{3, 6})
	// A peer may send an answer again and again, and to what nobody asked.
	replayed := slices.Repeat([][]byte{answer(nonceOf(1), 3), answer(nonceOf(1), 7)}, 1000)
	go write(append(replayed, request(nonceOf(1), 4), answer(nonceOf(2), 5), short, answer(nonceOf(1), 6))...)
	passes(request(nonceOf(1), 4), answer(nonceOf(2), 5), short)
	select {
	case line := <-lines:
		got, ok := Answers(line, 1)
		if !ok || len(got) != 2 || got[0].Tag != 3 || got[1].Tag != 6 || got[0].Age < 0 {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
		if other, ok := Answers(line, 2); !ok || len(other) > 0 {
			t.Errorf("another daemon reads %+v, %v", other, ok)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody is told of the answers")
	}
	if _, ok := Answers("Failed to send data packets", 1); ok {
		t.Error("any line is about answers")
	}
}
