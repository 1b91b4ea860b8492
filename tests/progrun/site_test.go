// Package progrun tests the loaded XDP programs packet by packet, by BPF_PROG_TEST_RUN, and the subsystem around them on
// a veth in a network namespace of the test's own.
package progrun_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"structs"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"sluice/tests/pindir"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// enter moves the goroutine into a new namespace until the test ends. Its thread dies with it when that fails.
func enter(t testing.TB) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("these tests need root: make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := netns.Set(home); err == nil {
			runtime.UnlockOSThread()
		}
		ns.Close()
		home.Close()
	})
	// No neighbour discovery of the kernel's own among the packets that a test counts.
	for _, conf := range []string{"all", "default"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+conf+"/disable_ipv6", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	return ns
}

// ours is the MAC address of the uplink, as frames have it.
var ours = net.HardwareAddr{2, 0, 0, 0, 0, 2}

// addVeth makes two ends in the current namespace and returns the first one's ifindex.
func addVeth(t testing.TB, name, peer string) int {
	t.Helper()
	attrs := netlink.LinkAttrs{Name: name}
	if name == "uplink" {
		attrs.HardwareAddr = ours
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{peer, name} {
		l, err := netlink.LinkByName(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	return ifindex(t, name)
}

func ifindex(t testing.TB, name string) int {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

// dirs are the directories of pins of all tests.
var dirs = pindir.NewLender("progrun")

func bpfDir(t testing.TB) string { return dirs.New(t) }

// like names what the verifier sees of a generation, or what that depends on.
func like(g xdp.Generation) string {
	var by [6]bool
	for _, p := range g.Policies() {
		for _, r := range p.Rules {
			for i, asks := range []bool{r.TCPMask != 0, r.TTL != 0, r.DSCP != 0, r.VLANs != nil, r.Lengths != nil, r.Shadow} {
				by[i] = by[i] || asks
			}
		}
	}
	buckets := 0 // how many there are is a constant of the program
	if tables, err := classify.Compile(g.Policies()); err == nil {
		buckets = len(tables.Buckets)
	}
	return fmt.Sprint(by, buckets, g.Self, len(g.Children) > 0, g.Failsafe.Default, len(g.Failsafe.Rules) > 0, g.System.Default, len(g.System.Rules) > 0,
		g.FlowSlots, classify.Limited(g.Limiters))
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// converge applies what Diff asks for and checks that nothing is left to do.
func converge(t testing.TB, s *xdp.Subsystem, want xdp.State) []string {
	t.Helper()
	ctx := context.Background()
	have, err := s.Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var done []string
	for _, op := range s.Diff(have, want) {
		if err := s.Apply(ctx, op); err != nil {
			t.Fatal(err)
		}
		done = append(done, op.String())
	}
	if have, err = s.Observe(ctx); err != nil {
		t.Fatal(err)
	}
	if ops := s.Diff(have, want); len(ops) > 0 {
		t.Fatalf("after %q there is still %v to do", done, ops)
	}
	return done
}

func state(g xdp.Generation, interfaces ...xdp.Interface) xdp.State {
	return xdp.State{Interfaces: interfaces, Generation: g, Digest: g.Digest()}
}

// site is a namespace with an uplink whose programs the test runs.
type site struct {
	*xdp.Subsystem
	ns     netns.NsHandle
	dir    string
	loaded xdp.Generation
	uplink int // ifindex of "uplink", whose other end is "tor"
	hook   pin.Hook
	live   *ebpf.Program
	gen    *pin.Generation
	said   *ebpf.Map // what the twin wrote
	counts *ebpf.Map // reasons
	hits   *ebpf.Map // rules and defaults
	slot   uint32
	last   tally // as the last check left it, which is as the next one finds it
}

func newSite(t testing.TB, g xdp.Generation) *site {
	t.Helper()
	s := &site{loaded: g, hook: pin.Hook{Kind: "xdp", Interface: "uplink"}}
	s.dir, s.ns = dirs.Lend(t, func() string { return like(s.loaded) }), enter(t)
	s.uplink = addVeth(t, "uplink", "tor")
	s.Subsystem = xdp.New(quiet(), xdp.Options{BPFDir: s.dir})
	s.load(t, g)
	return s
}

// load makes g the live generation and opens its programs.
func (s *site) load(t testing.TB, g xdp.Generation) {
	t.Helper()
	s.loaded = g
	converge(t, s.Subsystem, state(g, xdp.Interface{Name: "uplink", Mode: xdp.Native}))
	gen, err := pin.At(s.dir).LoadGeneration("xdp", g.Digest())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gen.Close() })
	s.gen, s.live, s.said = gen, gen.Programs["live"], gen.Maps["explained"]
	s.counts, s.hits = s.openMap(t, "xdp-reasons", 1), s.openMap(t, "rule-hits", 3)
	var entry abi.Interface
	if err := s.openMap(t, "xdp-interfaces", 1).Lookup(uint32(s.uplink), &entry); err != nil {
		t.Fatal(err)
	}
	s.slot = entry.Slot
}

func (s *site) openMap(t testing.TB, name string, version int) *ebpf.Map {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath(name, version), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// xdpMD is struct xdp_md.
type xdpMD struct {
	_                                                            structs.HostLayout
	Data, DataEnd, DataMeta, IngressIfindex, RxQueue, EgressIndx uint32
}

const (
	xdpDrop = 1
	xdpPass = 2
	xdpTX   = 3
)

// run sends one frame through a program as if it came in by an interface; 0 is whatever the kernel takes. It checks
// that the bytes stay as they are.
func run(t testing.TB, program *ebpf.Program, ifindex int, frame []byte) uint32 {
	t.Helper()
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256)}
	if ifindex != 0 {
		opts.Context = xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(ifindex)}
	}
	verdict, err := program.Run(opts)
	if err != nil {
		t.Fatalf("run %d bytes (%x): %v", len(frame), frame, err)
	}
	if string(opts.DataOut) != string(frame) {
		t.Fatalf("%x became %x", frame, opts.DataOut)
	}
	return verdict
}

// twin is the explain twin of the live program. The verifier takes its time for one, so it is loaded when it is asked.
func (s *site) twin(t testing.TB) *ebpf.Program {
	t.Helper()
	if s.gen.Programs["explain"] == nil {
		if err := s.PrepareExplain(t.Context(), "uplink"); err != nil {
			t.Fatal(err)
		}
		now, err := pin.At(s.dir).LoadGeneration("xdp", s.loaded.Digest())
		if err != nil {
			t.Fatal(err)
		}
		s.gen.Programs["explain"] = now.Programs["explain"]
		delete(now.Programs, "explain")
		if err := now.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return s.gen.Programs["explain"]
}

// explain runs the twin and returns what it wrote.
func (s *site) explain(t testing.TB, ifindex int, frame []byte) abi.Explanation {
	t.Helper()
	verdict := run(t, s.twin(t), ifindex, frame)
	var said abi.Explanation
	if err := s.said.Lookup(uint32(0), &said); err != nil {
		t.Fatal(err)
	}
	if said.Fate != verdict {
		t.Fatalf("the twin returned %d and wrote %d", verdict, said.Fate)
	}
	return said
}

func prefixes(texts ...string) []netip.Prefix {
	out := []netip.Prefix{}
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// generation has a default and rules for policy.ingress, and empty failsafe and system policies.
func generation(def classify.Action, rules ...classify.Rule) xdp.Generation {
	for i := range rules {
		if rules[i].Name == "" {
			rules[i].Name = fmt.Sprintf("rule-%d", rules[i].ID)
		}
	}
	return xdp.Generation{
		Failsafe:  classify.Policy{Name: "failsafe"},
		System:    classify.Policy{Name: "system"},
		Ingress:   classify.Policy{Name: "ingress", Rules: rules, Default: def},
		FlowSlots: 1024,
	}
}

// inSameNamespace runs f in the test's network namespace on a thread of its own and sends its error.
func inSameNamespace(t testing.TB, ns netns.NsHandle, done chan<- error, f func() error) {
	t.Helper()
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
}
