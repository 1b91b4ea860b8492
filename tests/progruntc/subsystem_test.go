package progruntc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

const childEnv = "SLUICE_PROGRUNTC_CHILD" // the bpf_dir of a child that stands for the daemon

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		standIn(dir)
		return
	}
	code := m.Run()
	if err := dirs.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "tests/progruntc:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func wanted(g tc.State) tc.State {
	g.Digest = g.Generation.Digest()
	return g
}

// standIn applies, says so, and waits to be killed. It inherits the namespace of the thread that started it.
func standIn(dir string) {
	s := tc.New(quiet(), tc.Options{BPFDir: dir})
	have, err := s.Observe(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, op := range s.Diff(have, wanted(baseline())) {
		if err := s.Apply(context.Background(), op); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // which ends when the parent does, should it never come to kill us
}

func TestTheDataPathOutlivesAKilledDaemonAndIsAdopted(t *testing.T) {
	s := newSite(t)
	if err := s.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.workload1.serveTCP(t, w1v4, 80)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), exe)
	child.Env = append(os.Environ(), childEnv+"="+s.dir)
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
	c, err := s.outside.dial("tcp", client4, w1v4, 80, deadline) // a connection from before
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // "signal: killed" is what we asked for

	next := tc.New(quiet(), tc.Options{BPFDir: s.dir})
	have, err := next.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := wanted(baseline())
	if diff := cmp.Diff(tc.State{Interfaces: want.Interfaces, Digest: want.Digest}, have); diff != "" {
		t.Errorf("what the next daemon finds:\n%s", diff)
	}
	if ops := next.Diff(have, want); len(ops) != 0 {
		t.Errorf("the next daemon would do %v", ops)
	}
	if err := transfer(c, 1<<20, nil); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
	s.outside.reaches(t, "tcp", client4, w1v4, 80)
	s.workload2.doesNotReach(t, "tcp", w2v4, w1v4, 80)
}

func TestAGenerationIsSwappedWithoutLosingAConnection(t *testing.T) {
	s := newSite(t)
	s.workload1.serveTCP(t, w1v4, 80)
	c, err := s.outside.dial("tcp", client4, w1v4, 80, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	swaps := 0
	swap := func() error {
		swaps++
		want := baseline()
		want.Generation.Workloads[0].Ingress.Rules[0].Ports[0].Last = uint16(80 + swaps)
		return s.gateway.run(func() error { return s.applyAll(wanted(want)) })
	}
	for swaps < 8 {
		if err := transfer(c, 32<<20, swap); err != nil {
			t.Fatal(err)
		}
	}
	for reason, n := range s.counted(t, "uplink") {
		if reason.Fate() == abi.FateDrop {
			t.Errorf("%d packets were dropped: %s", n, reason)
		}
	}
}

func TestAnInterfaceThatWasMadeAgainIsAttachedAgain(t *testing.T) {
	s := newSite(t)
	s.workload2.do(t, func() error { // the workload's end takes the host's with it
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	want := wanted(baseline())
	err := s.applyAll(want)
	if err == nil || !strings.Contains(err.Error(), "no interface wl2") {
		t.Fatalf("without the interface: %v", err)
	}
	if errors.Is(err, tc.ErrNoInterface) {
		t.Errorf("that there is no generation is told as an interface's absence, behind which the rest goes on: %v", err)
	}
	s.addWorkload(t, s.workload2, "wl2", w2v4, w2v6)
	have, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range have.Interfaces {
		if i.Name == "wl2" && i.Role != tc.RoleNone {
			t.Errorf("the new wl2 is taken for the old one: %+v", i)
		}
	}
	done := s.converge(t, want)
	if len(done) != 2 || !strings.HasPrefix(done[0], "load") || done[1] != "attach tcx on wl2 as workload" {
		t.Errorf("done: %q", done)
	}
	s.workload2.serveTCP(t, w2v4, 80)
	s.outside.reaches(t, "tcp", client4, w2v4, 80)
}

func (s *site) applyAll(want tc.State) error {
	have, err := s.Observe(context.Background())
	if err != nil {
		return err
	}
	for _, op := range s.Diff(have, want) {
		if err := s.Apply(context.Background(), op); err != nil {
			return err
		}
	}
	return nil
}

func TestDamagedHooksAreRepaired(t *testing.T) {
	s := newSite(t)
	dir := pin.At(s.dir)
	egress := pin.Hook{Kind: "tcx-egress", Interface: "uplink"}
	for _, test := range []struct {
		name   string
		damage func() error
		ops    int
	}{
		{"an emptied slot", func() error {
			slot, err := dir.Slot(egress)
			if err != nil {
				return err
			}
			defer slot.Close()
			return slot.Delete(uint32(0))
		}, 2},
		{"a removed link", func() error { return dir.RemoveLink(egress) }, 2},
		{"a generation whose pins are gone", func() error { return dir.SweepGenerations("tc") }, 1 + len(s.want.Interfaces)},
	} {
		s.sub(t, test.name, func(t *testing.T) {
			if err := test.damage(); err != nil {
				t.Fatal(err)
			}
			if done := s.converge(t, s.want); len(done) == 0 || len(done) > test.ops || !strings.HasPrefix(done[0], "load") {
				t.Errorf("done: %q", done)
			}
		})
	}
	walk(t, s, step{at: "uplink ingress", line: "tcp 198.51.100.7:9 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1"})
}

// Of an interface that was missing for the generation there are no pins: nobody has removed them.
func TestOnlyPinsThatWereThereAreLacking(t *testing.T) {
	s := newSite(t)
	want := baseline()
	want.Interfaces = append(want.Interfaces, tc.Interface{Name: "zz9", Role: tc.RoleUplink})
	want = wanted(sorted(want))
	if err := s.applyAll(want); !errors.Is(err, tc.ErrNoInterface) {
		t.Fatalf("without the interface: %v", err)
	}
	lacks := func(is bool, when string) {
		t.Helper()
		if got, err := s.Lacks(want); got != is || err != nil {
			t.Errorf("%s: %v (%v)", when, got, err)
		}
	}
	lacks(false, "without one interface")
	if err := os.Remove(filepath.Join(s.dir, "links", "tcx-ingress", "uplink")); err != nil {
		t.Fatal(err)
	}
	lacks(true, "without a pin")
}

func TestRolesAndInterfacesChangeInPlace(t *testing.T) {
	s := newSite(t)
	s.gateway.connect(t, "added.100", s.lan, "added1")
	walk(t, s, step{at: "uplink ingress", line: "tcp 198.51.100.7:9 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1"})
	before, err := s.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := baseline()
	want.Interfaces = append(want.Interfaces[1:], tc.Interface{Name: "added.100", Role: tc.RoleDownstream}) // without down
	done := s.converge(t, sorted(want))
	if diff := cmp.Diff([]string{"attach tcx on added.100 as downstream", "detach tcx from down"}, done[1:]); diff != "" {
		t.Errorf("done:\n%s", diff)
	}
	after, err := s.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	was, is := reasonsOf(before, "uplink")[abi.ReasonDelivered], reasonsOf(after, "uplink")[abi.ReasonDelivered]
	if was.Packets != 1 || is != was {
		t.Errorf("the uplink's counters moved: %v, then %v", was, is)
	}
	if n := reasonsOf(after, "added.100"); n[abi.ReasonDelivered].Packets != 0 {
		t.Errorf("the new interface inherited counters: %v", n)
	}
	judged(&want)
	if done := s.converge(t, sorted(want)); len(done) != 1 {
		t.Errorf("a changed judge: %q", done)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	s := newSite(t)
	tests := []struct {
		name   string
		change func(*tc.State)
		says   []string
	}{
		{"a missing interface", func(w *tc.State) {
			w.Interfaces = append(w.Interfaces, tc.Interface{Name: "zz9", Role: tc.RoleUplink})
		}, []string{"zz9", "create it"}},
		{"a workload without its interface", func(w *tc.State) {
			w.Generation.Workloads[0].Interface = "elsewhere"
		}, []string{"workload one", "elsewhere"}},
		{"one address twice", func(w *tc.State) {
			w.Generation.Workloads[1].Addresses = addrs(w1v4)
		}, []string{"workload two", w1v4}},
	}
	for _, test := range tests {
		s.sub(t, test.name, func(t *testing.T) {
			want := baseline()
			test.change(&want)
			err := s.applyAll(wanted(want))
			if err == nil {
				t.Fatal("no error")
			}
			for _, word := range test.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
			have, err := s.Observe(t.Context())
			if err != nil || len(s.Diff(have, s.want)) != 0 {
				t.Errorf("the failure changed something: %v, %v", s.Diff(have, s.want), err)
			}
		})
	}
	if _, err := tc.New(quiet(), tc.Options{BPFDir: t.TempDir()}).Observe(t.Context()); err != nil {
		t.Errorf("nothing to observe is no error: %v", err)
	}
	if err := tc.New(quiet(), tc.Options{BPFDir: t.TempDir()}).Apply(t.Context(), tc.Op{Kind: tc.Load, State: s.want}); !errors.Is(err, pin.ErrNotBPFFS) {
		t.Errorf("on a plain filesystem: %v", err)
	}
}

func TestDownLeavesNothing(t *testing.T) {
	s := newSite(t)
	if err := s.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of pins is still there: %v", err)
	}
	have, err := s.Observe(t.Context())
	if err != nil || len(have.Interfaces) != 0 || have.Digest != "" {
		t.Errorf("%+v, %v", have, err)
	}
	if err := s.Down(t.Context()); err != nil {
		t.Errorf("down twice: %v", err)
	}
	s.workload1.serveTCP(t, w1v4, 81)
	s.outside.reaches(t, "tcp", client4, w1v4, 81) // nobody judges any more
}

func TestDetachingEverythingSweepsTheGenerations(t *testing.T) {
	s := newSite(t)
	s.converge(t, tc.State{})
	if keys, err := pin.At(s.dir).Generations("tc"); err != nil || len(keys) != 0 {
		t.Errorf("generations %v, %v", keys, err)
	}
}
