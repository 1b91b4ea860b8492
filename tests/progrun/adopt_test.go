package progrun_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

const childEnv = "SLUICE_PROGRUN_CHILD" // the bpf_dir of a child that stands for the daemon

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		standIn(dir)
		return
	}
	code := m.Run()
	if err := dirs.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "tests/progrun:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func adopted() xdp.State {
	return state(strict(), xdp.Interface{Name: "uplink", Mode: xdp.Native, FailOpen: true})
}

// standIn applies, says so, and waits to be killed. It inherits the namespace of the thread that started it.
func standIn(dir string) {
	s := xdp.New(quiet(), xdp.Options{BPFDir: dir})
	for _, op := range s.Diff(xdp.State{}, adopted()) {
		if err := s.Apply(context.Background(), op); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // which ends when the parent does, should it never come to kill us
}

func TestTheDataPathOutlivesAKilledDaemonAndIsAdopted(t *testing.T) {
	enter(t)
	dir := bpfDir(t)
	addVeth(t, "uplink", "tor")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), exe)
	child.Env = append(os.Environ(), childEnv+"="+dir)
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("the child said %q: %v", line, err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // "signal: killed" is what we asked for

	s := xdp.New(quiet(), xdp.Options{BPFDir: dir})
	have, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := adopted()
	if diff := cmp.Diff(xdp.State{Interfaces: want.Interfaces, Digest: want.Digest}, have); diff != "" {
		t.Errorf("what the next daemon finds:\n%s", diff)
	}
	if ops := s.Diff(have, want); len(ops) != 0 {
		t.Errorf("the next daemon would do %v", ops)
	}

	// It still filters: a packet on the wire is dropped by its rule.
	frame := frame4(17, udp(1, 2))
	if err := sendFrames(ifindex(t, "tor"), frame, 10); err != nil {
		t.Fatal(err)
	}
	site := &site{Subsystem: s, dir: dir}
	counters := site.awaitCounters(t, 10)
	wantReasons := map[abi.Reason]xdp.Count{abi.ReasonRuleDrop: {Packets: 10, Bytes: uint64(10 * len(frame))}}
	if diff := cmp.Diff([]xdp.InterfaceCounters{{Name: "uplink", Reasons: wantReasons}}, counters.Interfaces); diff != "" {
		t.Errorf("counters:\n%s", diff)
	}
	hits, err := xdp.RuleHits(dir)
	if err != nil || len(hits) != 1 || hits[dropID].Count != wantReasons[abi.ReasonRuleDrop] {
		t.Errorf("rule counters: %v, %v", hits, err)
	}
}

func TestADetachedOrEmptiedHookIsRepaired(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	want := state(generation(classify.Accept), xdp.Interface{Name: "uplink", Mode: xdp.Native})

	s.emptySlot(t)
	if done := converge(t, s.Subsystem, want); len(done) != 1 || !strings.HasPrefix(done[0], "load") {
		t.Errorf("an emptied slot: %q", done)
	}
	if err := pin.At(s.dir).RemoveLink(s.hook); err != nil {
		t.Fatal(err)
	}
	if done := converge(t, s.Subsystem, want); len(done) != 2 || !strings.HasPrefix(done[1], "attach") {
		t.Errorf("a removed link: %q", done)
	}
	root := id(t, s.rootProgram(t))
	if err := os.Remove(filepath.Join(s.dir, "slots", s.hook.Kind, s.hook.Interface)); err != nil {
		t.Fatal(err)
	}
	if done := converge(t, s.Subsystem, want); len(done) != 2 || !strings.HasPrefix(done[1], "attach") {
		t.Errorf("a removed slot: %q", done)
	}
	if id(t, s.rootProgram(t)) == root {
		t.Error("the root still jumps into the slot that was removed")
	}
}

func TestARootOfAnotherVersionIsExchangedInPlace(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	l, err := pin.At(s.dir).Link(s.hook)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	former, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "root_00000000", Type: ebpf.XDP, License: "GPL",
		AttachType: ebpf.AttachXDP, Flags: unix.BPF_F_XDP_HAS_FRAGS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer former.Close()
	if err := l.Update(former); err != nil {
		t.Fatal(err)
	}
	done := converge(t, s.Subsystem, state(generation(classify.Accept), xdp.Interface{Name: "uplink", Mode: xdp.Auto}))
	if len(done) != 2 || !strings.HasPrefix(done[1], "attach") {
		t.Errorf("done: %q", done)
	}
	info, err := l.Info()
	if err != nil || info.XDP().Ifindex != uint32(s.uplink) {
		t.Fatalf("the link is not on the uplink any more: %+v, %v", info, err)
	}
	if info.Program == id(t, former) {
		t.Error("the former root is still attached")
	}
}

// TestAHalfSweptGenerationIsBuiltAnew: a crash in mid-sweep, and then the way back to what was being swept.
func TestAHalfSweptGenerationIsBuiltAnew(t *testing.T) {
	uplink := xdp.Interface{Name: "uplink", Mode: xdp.Native}
	s := newSite(t, generation(classify.Accept))
	former := state(generation(classify.Drop), uplink)
	if err := os.Mkdir(filepath.Join(s.dir, "gen", "xdp-"+former.Digest), 0o700); err != nil {
		t.Fatal(err)
	}
	converge(t, s.Subsystem, former)
	s.load(t, former.Generation)
	s.check(t, "a packet", frame4(17, udp(1, 2)), abi.ReasonDefaultDrop)
}

// TestAGenerationWithOtherFlowTablesIsLoadedAnew: an apply that resized them and then failed leaves XDP with the former
// ones, while tc writes to those that are pinned.
func TestAGenerationWithOtherFlowTablesIsLoadedAnew(t *testing.T) {
	s := newSite(t, strict())
	now := s.openMap(t, "fresh-out", 3)
	spec := &ebpf.MapSpec{Name: "fresh_out", Type: now.Type(), KeySize: now.KeySize(), ValueSize: now.ValueSize(), Flags: now.Flags()}
	for _, size := range []uint32{2 * now.MaxEntries(), now.MaxEntries()} { // tc: there and back
		spec.MaxEntries = size
		m, err := pin.At(s.dir).StateMap(spec, "fresh-out", 3)
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
	}
	have, err := s.Observe(t.Context())
	if err != nil || have.Digest != "" {
		t.Errorf("observed %q: %v; the live generation reads flows that nobody writes", have.Digest, err)
	}
	s.load(t, strict())
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, netip.MustParseAddr(outside), 2, 1, 17), time.Second, abi.FlowNew)
	s.check(t, "a reply", from4(outside, frame4(17, udp(1, 2))), abi.ReasonEstablished)
}
