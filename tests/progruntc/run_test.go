package progruntc_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"structs"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"sluice/xdp/abi"
	"sluice/xdp/packet"
	"sluice/xdp/pin"
)

// What a tcx program returns.
const (
	tcxNext     = 0xffffffff // -1
	tcxDrop     = 2
	tcxRedirect = 7
)

// skBuff is the beginning of struct __sk_buff.
type skBuff struct {
	_              structs.HostLayout
	_              [2]uint32
	Mark           uint32
	_              [5]uint32
	Priority       uint32
	IngressIfindex uint32
	Ifindex        uint32
}

// step is one packet at one hook.
type step struct {
	at     string // "wl1 ingress"
	line   string // of package packet
	frame  []byte // instead of line
	seq    uint32 // of TCP over IPv4, where either is set
	ack    uint32
	mark   uint32
	from   string // egress: the interface it came in by; "": made here
	reason abi.Reason
	to     string        // redirected to
	rule   uint32        // that the twin names
	idle   time.Duration // of the flows before it, where the test asks for that
}

// prepared is live with the twins of some hooks, for tests in which time matters.
func (s *site) prepared(t testing.TB, at ...string) *pin.Generation {
	t.Helper()
	g := s.live(t)
	for _, hook := range at {
		name, _ := s.program(t, g, hook)
		s.twin(t, g, hook, name)
	}
	return g
}

// live opens the pinned live generation, with the twins that it has: each takes the verifier's time, and try asks for one
// when it needs it.
func (s *site) live(t testing.TB) *pin.Generation {
	t.Helper()
	dir := pin.At(s.dir)
	live, err := dir.LivePrograms("tcx-ingress", "tcx-egress")
	if err != nil || len(live) == 0 {
		t.Fatalf("live programs %v: %v", live, err)
	}
	var g *pin.Generation
	for id := range live { // one generation's, all of them
		if g, _, _, err = dir.FindGeneration("tc", id); err != nil {
			t.Fatal(err)
		}
		break
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func index(t testing.TB, name string) *netlink.LinkAttrs {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l.Attrs()
}

func frameOf(t testing.TB, line string) []byte {
	t.Helper()
	spec, err := packet.Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := spec.Frame()
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// program finds the program of a hook, and what its packets stand on.
func (s *site) program(t testing.TB, g *pin.Generation, at string) (name string, device *netlink.LinkAttrs) {
	t.Helper()
	iface, direction, _ := strings.Cut(at, " ")
	for _, i := range s.want.Interfaces {
		if i.Name == iface {
			return i.Role.String() + "_" + direction, index(t, iface)
		}
	}
	t.Fatalf("no interface for %q", at)
	return "", nil
}

// twin is that of a program of g, which the first Explain of a hook loads where it is live.
func (s *site) twin(t testing.TB, g *pin.Generation, at, name string) *ebpf.Program {
	t.Helper()
	const prefix = "explain-"
	if g.Programs[prefix+name] == nil {
		iface, direction, _ := strings.Cut(at, " ")
		if _, err := s.Explain(t.Context(), iface, direction == "egress", make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
		id, err := pin.ProgramID(g.Programs[name])
		if err != nil {
			t.Fatal(err)
		}
		now, _, _, err := pin.At(s.dir).FindGeneration("tc", id)
		if err != nil {
			t.Fatal(err)
		}
		g.Programs[prefix+name] = now.Programs[prefix+name]
		delete(now.Programs, prefix+name)
		if err := now.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if g.Programs[prefix+name] == nil {
		t.Fatalf("%s: the generation is not live", at)
	}
	return g.Programs[prefix+name]
}

// run sends one frame through a program and returns what it returned, and the frame as it left it.
func run(t testing.TB, p *ebpf.Program, ctx skBuff, frame []byte) (uint32, []byte) {
	t.Helper()
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: ctx}
	verdict, err := p.Run(opts)
	if err != nil {
		t.Fatalf("run %d bytes (%x): %v", len(frame), frame, err)
	}
	return verdict, opts.DataOut
}

// try asks the twin and then runs the live program: both must give the step's reason, one counter must count it, and
// nothing but TTL and header checksum may change. The frame as it left is returned.
func (s *site) try(t testing.TB, g *pin.Generation, st step) []byte {
	t.Helper()
	name, device := s.program(t, g, st.at)
	frame := st.frame
	if frame == nil {
		frame = frameOf(t, st.line)
	}
	frame = append([]byte(nil), frame...)
	if st.seq|st.ack != 0 {
		binary.BigEndian.PutUint32(frame[14+20+4:], st.seq)
		binary.BigEndian.PutUint32(frame[14+20+8:], st.ack)
	}
	if frame[0]&1 == 0 && !strings.Contains(st.line, "dst-mac") {
		copy(frame, append(append([]byte{}, device.HardwareAddr...), make([]byte, 6)...)[:6])
	}
	ctx := skBuff{Mark: st.mark, Ifindex: uint32(device.Index)}
	if st.from != "" {
		ctx.IngressIfindex = uint32(index(t, st.from).Index)
	}
	iface, _, _ := strings.Cut(st.at, " ")
	s.quiet(t, iface)

	verdict, _ := run(t, s.twin(t, g, st.at, name), ctx, frame)
	var said abi.Explanation
	if err := g.Maps["explained"].Lookup(uint32(0), &said); err != nil {
		t.Fatal(err)
	}
	if got := abi.Reason(said.Reason); got != st.reason || said.Fate != verdict {
		t.Fatalf("%s %s: the twin says %s (fate %d, returned %d), want %s", st.at, st.line, got, said.Fate, int32(verdict), st.reason)
	}
	if st.rule != 0 && said.Rule != st.rule {
		t.Errorf("%s %s: the twin says rule %d, want %d", st.at, st.line, said.Rule, st.rule)
	}
	to := uint32(0)
	if st.to != "" {
		to = uint32(index(t, st.to).Index)
	}
	if said.Ifindex != to {
		t.Errorf("%s %s: redirected to %d, want %d (%s)", st.at, st.line, said.Ifindex, to, st.to)
	}
	if n := s.counted(t, iface); len(n) != 0 {
		t.Fatalf("%s %s: the twin counted %v", st.at, st.line, n)
	}

	verdict, left := run(t, g.Programs[name], ctx, frame)
	if diff := cmp.Diff(map[abi.Reason]uint64{st.reason: 1}, s.counted(t, iface)); diff != "" && st.reason != abi.ReasonLinkControl {
		t.Errorf("%s %s: counters:\n%s", st.at, st.line, diff)
	}
	if want := verdictOf(st); verdict != want {
		t.Errorf("%s %s: returned %d, want %d", st.at, st.line, int32(verdict), int32(want))
	}
	want := moved(frame, st.to != "")
	if st.reason == abi.ReasonForwarded && st.to != "" && !bytes.Equal(left[:12], want[:12]) { // within a tick of one before it
		copy(want, s.wire(t, st.to))
	}
	if !cmp.Equal(want, left) {
		t.Errorf("%s %s: the frame became\n%x, want\n%x", st.at, st.line, left, want)
	}
	return left
}

func verdictOf(st step) uint32 {
	switch {
	case st.to != "":
		return tcxRedirect
	case st.reason.Fate() == abi.FateDrop:
		return tcxDrop
	}
	return tcxNext
}

// moved is the frame as a router leaves it: one TTL less and, with IPv4, the checksum of its header made anew.
func moved(frame []byte, redirected bool) []byte {
	out := append([]byte(nil), frame...)
	if !redirected {
		return out
	}
	if binary.BigEndian.Uint16(out[12:]) == 0x86dd {
		out[14+7]--
		return out
	}
	out[14+8]--
	binary.BigEndian.PutUint16(out[14+10:], 0)
	binary.BigEndian.PutUint16(out[14+10:], checksum(out[14:14+int(out[14]&15)*4]))
	return out
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// walk tries steps one after the other on a site of their own.
func walk(t *testing.T, s *site, steps ...step) {
	t.Helper()
	g := s.live(t)
	for _, st := range steps {
		s.try(t, g, st)
	}
}
