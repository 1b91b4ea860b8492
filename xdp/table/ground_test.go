package table

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// ground is a directory of pins, with slots that stand for the data path.
type ground struct {
	*pin.Dir
	t *testing.T
}

func newGround(t *testing.T) ground {
	t.Helper()
	parent, err := os.MkdirTemp("/sys/fs/bpf", "sluice-table-test-")
	if err != nil {
		t.Fatalf("this test needs root and a bpffs at /sys/fs/bpf: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	dir, err := pin.Open(filepath.Join(parent, "site"))
	if err != nil {
		t.Fatal(err)
	}
	return ground{dir, t}
}

func (g ground) good(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// flowSpec are the flow tables as maps.h has them.
func flowSpec(flows, fresh uint32) *ebpf.CollectionSpec {
	hash := func(kind ebpf.MapType, flags, value, entries uint32) *ebpf.MapSpec {
		return &ebpf.MapSpec{Type: kind, Flags: flags, KeySize: sizeFlowKey, ValueSize: value, MaxEntries: entries}
	}
	flow := uint32(len(bytesOf(abi.Flow{})))
	return &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{
		Flows:        hash(ebpf.Hash, unix.BPF_F_NO_PREALLOC, flow, flows),
		Translations: hash(ebpf.Hash, unix.BPF_F_NO_PREALLOC, uint32(len(bytesOf(abi.Translation{}))), flows),
		FreshOut:     hash(ebpf.LRUHash, 0, flow, fresh),
		FreshIn:      hash(ebpf.LRUHash, 0, flow, fresh),
	}}
}

var flowNames = []string{Flows, Translations, FreshOut, FreshIn}

// open opens the tables as a daemon of today does, and closes them when the test ends.
func (g ground) open(flows, fresh uint32) map[string]*ebpf.Map {
	g.t.Helper()
	all, err := OpenState(g.Dir, flowSpec(flows, fresh), flowNames...)
	g.good(err)
	g.t.Cleanup(func() { _ = CloseAll(all) })
	return all
}

// former1 makes and pins the tables of version 1, of so many entries.
func (g ground) former1(entries uint32) (out, in *ebpf.Map) {
	g.t.Helper()
	make1 := func(name string) *ebpf.Map {
		m, err := g.StateMap(&ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 40, ValueSize: 16, MaxEntries: entries}, name, 1)
		g.good(err)
		g.t.Cleanup(func() { m.Close() })
		return m
	}
	return make1(formerFlowsOut), make1(formerFlowsIn)
}

// run switches a slot to a program that uses these maps and no others.
func (g ground) run(kind string, used ...*ebpf.Map) {
	g.t.Helper()
	var code asm.Instructions
	for _, m := range used {
		code = append(code, asm.LoadMapPtr(asm.R1, m.FD()))
	}
	spec := &ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: append(code, asm.Mov.Imm(asm.R0, 0), asm.Return())}
	p, err := ebpf.NewProgram(spec)
	g.good(err)
	defer p.Close()
	g.good(g.Switch(pin.Hook{Kind: kind, Interface: "eth0"}, p))
}

func (g ground) takeOver() Handover {
	g.t.Helper()
	h, err := TakeOver(g.Dir)
	g.good(err)
	return h
}

func (g ground) settle(h Handover) {
	g.t.Helper()
	g.good(h.Settle(g.Dir))
}

// pins are the names of all pinned maps, sorted.
func (g ground) pins() []string {
	entries, err := os.ReadDir(filepath.Join(g.Path(), "maps"))
	g.good(err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// only holds the pins against those of today's tables.
func (g ground) only() {
	g.t.Helper()
	want := []string{"flows-v3", "fresh-in-v3", "fresh-out-v3", "translations-v3"}
	if diff := cmp.Diff(want, g.pins()); diff != "" {
		g.t.Errorf("pins (-want +got):\n%s", diff)
	}
}

// v1 is an entry of version 1: a flow from 198.18.0.2 or, with in, toward it.
type v1 struct {
	in       bool
	protocol uint8
	port     uint16
	idle     uint64 // seconds
	flags    uint32
}

func (e v1) key() formerFlowKey {
	client, server := netip.MustParseAddr("198.18.0.2").As16(), netip.MustParseAddr("203.0.113.9").As16()
	k := formerFlowKey{Src: client, Dst: server, Sport: [2]byte{byte(e.port >> 8), byte(e.port)}, Dport: [2]byte{0, 80}, Protocol: e.protocol}
	if e.in {
		k.Src, k.Dst = k.Dst, k.Src
	}
	return k
}

func (e v1) put(g ground, out, in *ebpf.Map) (lastNs uint64) {
	g.t.Helper()
	m := out
	if e.in {
		m = in
	}
	lastNs = monotonic() - e.idle*second
	g.good(m.Put(bytesOf(e.key()), bytesOf(formerFlow{LastNs: lastNs, Flags: e.flags})))
	return lastNs
}

// find looks a flow up as programs do, and says in which table it was.
func (g ground) find(all map[string]*ebpf.Map, k formerFlowKey) (string, abi.Flow) {
	g.t.Helper()
	key, opener := k.today()
	for _, name := range []string{Flows, FreshOut, FreshIn} {
		var flow abi.Flow
		err := all[name].Lookup(key, &flow)
		if err == nil {
			if int(flow.Opener) != opener {
				g.t.Errorf("%+v: opened by end %d, want %d", k, flow.Opener, opener)
			}
			return name, flow
		}
		if !errors.Is(err, ebpf.ErrKeyNotExist) {
			g.t.Fatal(err)
		}
	}
	return "", abi.Flow{}
}
