package progrun_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// sendFrames puts n frames on the wire out of an interface.
func sendFrames(out int, frame []byte, n uint32) error {
	send, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpTX), asm.Return()}})
	if err != nil {
		return err
	}
	defer send.Close()
	_, err = send.Run(&ebpf.RunOptions{Data: frame, Repeat: n, Flags: liveFrames,
		Context: xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(out)}})
	return err
}

// awaitCounters reads the subsystem's counters until they hold as many packets.
func (s *site) awaitCounters(t *testing.T, packets uint64) xdp.Counters {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		counters, err := s.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var sum uint64
		for _, i := range counters.Interfaces {
			for _, c := range i.Reasons {
				sum += c.Packets
			}
		}
		if sum >= packets || time.Now().After(deadline) {
			return counters
		}
	}
}

// bare is a namespace and a subsystem that has nothing yet.
func bare(t *testing.T, logged *bytes.Buffer) *site {
	t.Helper()
	s := &site{ns: enter(t), dir: bpfDir(t)}
	s.Subsystem = xdp.New(slog.New(slog.NewTextHandler(logged, nil)), xdp.Options{BPFDir: s.dir})
	return s
}

// apply returns the first error of what Diff asks for.
func (s *site) apply(t *testing.T, want xdp.State) error {
	t.Helper()
	have, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range s.Diff(have, want) {
		if err := s.Apply(t.Context(), op); err != nil {
			return err
		}
	}
	return nil
}

func TestAutoFallsBackToGenericAndSaysWhy(t *testing.T) {
	var logged bytes.Buffer
	s := bare(t, &logged)
	want := state(generation(classify.Accept), xdp.Interface{Name: "lo", Mode: xdp.Auto}) // lo has no native XDP
	converge(t, s.Subsystem, want)
	status, err := s.Status(t.Context())
	if err != nil || len(status) != 1 {
		t.Fatalf("status %v: %v", status, err)
	}
	got := status[0]
	if got.Interface != "lo" || got.Mode != xdp.Generic || got.Generation != want.Digest || got.Program == 0 ||
		!strings.Contains(got.Why, "native XDP was refused") {
		t.Errorf("status %+v", got)
	}
	if !strings.Contains(logged.String(), "level=WARN") || !strings.Contains(logged.String(), "interface=lo") {
		t.Errorf("the log says:\n%s", &logged)
	}
	facts, err := s.Facts(t.Context())
	if err != nil || facts.Native["lo"] != got.Why || facts.KernelRelease == "" {
		t.Errorf("facts %+v: %v", facts, err)
	}

	want.Interfaces[0].Mode = xdp.Native
	err = s.apply(t, want)
	if err == nil || !strings.Contains(err.Error(), "native XDP on lo") || !strings.Contains(err.Error(), "xdp.mode: generic") {
		t.Errorf("native where there is none: %v", err)
	}
	want.Interfaces[0].Mode = xdp.Generic
	if done := converge(t, s.Subsystem, want); len(done) != 0 {
		t.Errorf("the failure took the former mode away: %q", done)
	}
}

func TestModesChangeBothWays(t *testing.T) {
	var logged bytes.Buffer
	s := bare(t, &logged)
	addVeth(t, "uplink", "tor")
	for _, mode := range []xdp.Mode{xdp.Auto, xdp.Generic, xdp.Native, xdp.Auto} {
		converge(t, s.Subsystem, state(generation(classify.Accept), xdp.Interface{Name: "uplink", Mode: mode}))
		status, err := s.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := map[xdp.Mode]xdp.Mode{xdp.Auto: xdp.Native}[mode]; status[0].Mode != want && status[0].Mode != mode {
			t.Errorf("wanted %s, runs in %s", mode, status[0].Mode)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	var logged bytes.Buffer
	s := bare(t, &logged)
	err := s.apply(t, state(generation(classify.Accept), xdp.Interface{Name: "eth9", Mode: xdp.Auto}))
	if !errors.Is(err, xdp.ErrNoInterface) || !strings.Contains(err.Error(), "eth9") {
		t.Errorf("a missing interface: %v", err)
	}
	// Going back takes the leftovers away.
	converge(t, s.Subsystem, xdp.State{})
	if hooks, _ := pin.At(s.dir).Hooks(""); len(hooks) != 0 {
		t.Errorf("left over: %v", hooks)
	}

	index := addVeth(t, "uplink", "tor")
	foreign, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	other, err := link.AttachXDP(link.XDPOptions{Program: foreign, Interface: index})
	if err != nil {
		t.Fatal(err)
	}
	err = s.apply(t, state(generation(classify.Accept), xdp.Interface{Name: "uplink", Mode: xdp.Auto}))
	if err == nil || !strings.Contains(err.Error(), "another XDP program") {
		t.Errorf("an occupied interface: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	converge(t, s.Subsystem, state(generation(classify.Accept), xdp.Interface{Name: "uplink", Mode: xdp.Auto}))

	plain := xdp.New(quiet(), xdp.Options{BPFDir: filepath.Join(t.TempDir(), "bpf")})
	if err := plain.Apply(t.Context(), xdp.Op{Kind: xdp.Detach, Interface: xdp.Interface{Name: "x"}}); !errors.Is(err, pin.ErrNotBPFFS) {
		t.Errorf("not a bpffs: %v", err)
	}
}

func TestAnInterfaceThatComesBackIsAttachedAgain(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	want := state(generation(classify.Accept), xdp.Interface{Name: "uplink", Mode: xdp.Native})
	run(t, s.live, s.uplink, frame4(17, udp(1, 2)))
	l, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	have, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]xdp.Interface{{Name: "uplink"}}, have.Interfaces); diff != "" {
		t.Errorf("with the interface gone:\n%s", diff)
	}
	if err := s.apply(t, want); !errors.Is(err, xdp.ErrNoInterface) {
		t.Errorf("attaching to what has gone: %v", err)
	}
	s.uplink = addVeth(t, "uplink", "tor")
	converge(t, s.Subsystem, want)
	counters, err := s.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]xdp.InterfaceCounters{{Name: "uplink", Reasons: map[abi.Reason]xdp.Count{}}}, counters.Interfaces); diff != "" {
		t.Errorf("a new interface begins with counters of its predecessor:\n%s", diff)
	}

	// Renamed, it is another interface: the root goes with the name.
	l, err = netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "other"), netlink.LinkSetUp(l)); err != nil {
		t.Fatal(err)
	}
	converge(t, s.Subsystem, state(generation(classify.Accept), xdp.Interface{Name: "other", Mode: xdp.Native}))
}

func TestSeveralInterfacesShareAGenerationAndCountApart(t *testing.T) {
	var logged bytes.Buffer
	s := bare(t, &logged)
	addVeth(t, "eth0.100", "tor-a")
	addVeth(t, "eth_1", "tor-b")
	a := xdp.Interface{Name: "eth0.100", Mode: xdp.Native}
	b := xdp.Interface{Name: "eth_1", Mode: xdp.Generic, FailOpen: true}
	drop := generation(classify.Drop)
	converge(t, s.Subsystem, state(drop, a))
	converge(t, s.Subsystem, state(drop, a, b)) // the second one joins the live generation
	frame := frame4(17, udp(1, 2))
	for peer, n := range map[string]uint32{"tor-a": 3, "tor-b": 5} {
		for range n { // as packets, because generic mode lets no XDP frame in
			if err := sendPacket(ifindex(t, peer), frame); err != nil {
				t.Fatal(err)
			}
		}
	}
	counters := s.awaitCounters(t, 8)
	want := []xdp.InterfaceCounters{
		{Name: "eth0.100", Reasons: map[abi.Reason]xdp.Count{abi.ReasonDefaultDrop: {Packets: 3, Bytes: uint64(3 * len(frame))}}},
		{Name: "eth_1", Reasons: map[abi.Reason]xdp.Count{abi.ReasonDefaultDrop: {Packets: 5, Bytes: uint64(5 * len(frame))}}},
	}
	if diff := cmp.Diff(want, counters.Interfaces); diff != "" {
		t.Errorf("counters:\n%s", diff)
	}
	converge(t, s.Subsystem, state(generation(classify.Accept), b)) // one leaves, the other gets a new generation
	if digests, _ := pin.At(s.dir).Generations("xdp"); len(digests) != 2 || !slices.Contains(digests, generation(classify.Accept).Digest()) {
		t.Errorf("generations %v: want the live one and the former one", digests)
	}
	if e, err := s.Explain(t.Context(), "eth_1", frame); err != nil || e.Reason != abi.ReasonDefaultAccept {
		t.Errorf("explain on eth_1: %+v, %v", e, err)
	}
}

func TestFlowsOutliveAChangeOfTheirNumber(t *testing.T) {
	g := strict()
	s := newSite(t, g)
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, src4, 1, 2, 17), time.Second, abi.FlowNew)
	frame := to4(outside, frame4(17, udp(2, 1)))
	g.FlowSlots = 4096
	g.Self = addrs(outside)
	s.load(t, g)
	if size := s.openMap(t, "fresh-out", 3).MaxEntries(); size != 4096 {
		t.Errorf("%d entries", size)
	}
	s.check(t, "not the flow's address", frame, abi.ReasonDefaultDrop)
	putFlow(t, s.openMap(t, "fresh-out", 3), key(g.Self[0], src4, 1, 2, 17), time.Second, abi.FlowNew)
	s.check(t, "a flow of the new table", frame, abi.ReasonEstablished)
	var flow abi.Flow
	if err := s.openMap(t, "fresh-out", 3).Lookup(key(dst4, src4, 1, 2, 17).FlowKey, &flow); err != nil {
		t.Errorf("the flow of the former table: %v", err)
	}
}

func TestDownLeavesNothing(t *testing.T) {
	s := newSite(t, strict())
	if err := s.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("bpf_dir is still there: %v", err)
	}
	l, err := netlink.LinkByIndex(s.uplink)
	if err != nil || l.Attrs().Xdp.Attached {
		t.Errorf("a program is still attached: %+v, %v", l.Attrs().Xdp, err)
	}
	have, err := s.Observe(t.Context())
	if diff := cmp.Diff(xdp.State{}, have); diff != "" || err != nil {
		t.Errorf("observed after down: %v\n%s", err, diff)
	}
	if err := s.Down(t.Context()); err != nil {
		t.Errorf("down again: %v", err)
	}
}
