package progruntc_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"sluice/tc"
	"sluice/tests/flowmodel"
	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// modelSite is a site with several generations loaded at once, each from pins of its own, on the same state maps: so to switch
// costs nothing, and thousands of sequences can.
type modelSite struct {
	*site
	world       *flowmodel.World
	generations []*pin.Generation
	index       map[string]uint32 // of interfaces
	names       map[uint32]string
	macs        map[string][]byte
	slots       map[string]uint32
	maps        map[string]*ebpf.Map // state
	reasons     *ebpf.Map
	counted     map[string][abi.ReasonMax]uint64
}

// modelTables are the state maps that sequences begin without.
var modelTables = []string{table.Flows, table.FreshOut, table.FreshIn, table.Translations, table.SNATFragments, table.FlowShares}

func newModelSite(t *testing.T) *modelSite {
	t.Helper()
	states := modelStates()
	m := &modelSite{world: modelWorld(), index: map[string]uint32{}, names: map[uint32]string{}, macs: map[string][]byte{},
		slots: map[string]uint32{}, maps: map[string]*ebpf.Map{}, counted: map[string][abi.ReasonMax]uint64{}}
	m.site = newSite(t, func(s *tc.State) { *s = states[0] })
	m.gateway.route(t, "10.7.0.0/24", lan4, "down")
	for at, iface := range map[string]string{"198.18.0.1": "uplink", "2001:db8::1": "uplink", lan4: "down"} {
		m.knows(t, iface, at)
	}
	m.generations = append(m.generations, m.live(t))
	for _, state := range states[1:] {
		m.generations = append(m.generations, m.beside(t, state))
	}
	for _, name := range append([]string{table.LimitSeed}, modelTables...) {
		opened, err := table.ReadShared(pin.At(m.dir), name)
		if err != nil || opened == nil {
			t.Fatalf("%s: %v, %v", name, opened, err)
		}
		t.Cleanup(func() { opened.Close() })
		m.maps[name] = opened
	}
	var err error
	if m.reasons, err = ebpf.LoadPinnedMap(pin.At(m.dir).StateMapPath("tc-reasons", 1), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.reasons.Close() })
	for _, i := range states[0].Interfaces {
		l := index(t, i.Name)
		m.index[i.Name], m.names[uint32(l.Index)], m.macs[i.Name] = uint32(l.Index), i.Name, l.HardwareAddr
		var entry abi.Interface
		if err := m.generations[0].Maps["interfaces"].Lookup(uint32(l.Index), &entry); err != nil {
			t.Fatal(err)
		}
		m.slots[i.Name] = entry.Slot
		m.reasonOf(t, i.Name, abi.ReasonNone)
	}
	return m
}

var modelNeighbor = net.HardwareAddr{2, 0, 0, 0, 0, 9}

// knows makes a neighbour permanent: nobody answers for it, and what is not resolved is the kernel's.
func (m *modelSite) knows(t *testing.T, iface, at string) {
	t.Helper()
	neighbour := &netlink.Neigh{LinkIndex: index(t, iface).Index, IP: net.ParseIP(at), State: netlink.NUD_PERMANENT,
		HardwareAddr: modelNeighbor}
	if err := netlink.NeighSet(neighbour); err != nil {
		t.Fatal(err)
	}
}

// beside loads a generation in a directory of its own, where the state maps of the site are pinned too.
func (m *modelSite) beside(t *testing.T, state tc.State) *pin.Generation {
	t.Helper()
	dir := bpfDir(t)
	if _, err := pin.Open(dir); err != nil {
		t.Fatal(err)
	}
	pins, err := os.ReadDir(filepath.Join(m.dir, "maps"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pins {
		state, err := ebpf.LoadPinnedMap(filepath.Join(m.dir, "maps", p.Name()), nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := state.Clone()
		if err == nil {
			err = again.Pin(filepath.Join(dir, "maps", p.Name()))
		}
		if err = errors.Join(err, state.Close(), again.Close()); err != nil {
			t.Fatal(err)
		}
	}
	state.Digest = state.Generation.Digest()
	s := tc.New(slog.New(slog.NewTextHandler(io.Discard, nil)), tc.Options{BPFDir: dir})
	for _, op := range s.Diff(tc.State{}, state) {
		if op.Kind != tc.Load { // no packet meets it, so it hangs on nothing
			continue
		}
		if err := s.Apply(t.Context(), op); err != nil {
			t.Fatalf("%+v", err)
		}
	}
	return m.loaded(t, dir)
}

func (m *modelSite) loaded(t *testing.T, path string) *pin.Generation {
	t.Helper()
	dir := pin.At(path)
	keys, err := dir.Generations("tc")
	if err != nil || len(keys) != 1 {
		t.Fatalf("generations %v: %v", keys, err)
	}
	g, err := dir.LoadGeneration("tc", keys[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// fullContext is struct __sk_buff, of which the kernel wants room for all to give it back.
type fullContext struct {
	skBuff
	_ [148]byte
}

// send runs a packet at a hook of a generation. It returns what the program returned, the packet as it left it, its mark and
// the reason.
func (m *modelSite) send(t *testing.T, generation int, h flowmodel.Hop, p flowmodel.Packet, mark uint32, likely abi.Reason) (verdict uint32, left []byte,
	after uint32, reason abi.Reason) {
	t.Helper()
	frame := p.Frame(m.macs[h.Interface])
	role := m.world.Generations[0].Interfaces[h.Interface].Role
	name := map[abi.Role]string{abi.RoleUplink: "uplink", abi.RoleWorkload: "workload", abi.RoleDownstream: "downstream"}[role] + "_ingress"
	if h.Egress {
		name = name[:len(name)-len("ingress")] + "egress"
	}
	var out fullContext
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), ContextOut: &out,
		Context: skBuff{Mark: mark, Ifindex: m.index[h.Interface], IngressIfindex: m.index[h.From]}}
	verdict, err := m.generations[generation].Programs[name].Run(opts)
	if err != nil {
		t.Fatalf("%s: %s: %v", h.Hook, p, err)
	}
	return verdict, opts.DataOut, out.Mark, m.reasonOf(t, h.Interface, likely)
}

// reasonOf is the one that was counted on an interface since the last call; abi.ReasonMax: none or several. Where it is the
// likely one, nothing else is looked at: what was counted besides is found by a later call.
func (m *modelSite) reasonOf(t *testing.T, iface string, likely abi.Reason) abi.Reason {
	t.Helper()
	was := m.counted[iface]
	if n := m.count(t, iface, likely) - was[likely]; n == 1 {
		was[likely]++
		m.counted[iface] = was
		return likely
	}
	now, found, n := [abi.ReasonMax]uint64{}, abi.ReasonMax, uint64(0)
	for r := range abi.ReasonMax {
		now[r] = m.count(t, iface, r)
		if r != abi.ReasonLinkControl && now[r] != was[r] {
			found = r
			n += now[r] - was[r]
		}
	}
	m.counted[iface] = now
	if n != 1 {
		return abi.ReasonMax
	}
	return found
}

func (m *modelSite) count(t *testing.T, iface string, r abi.Reason) (n uint64) {
	t.Helper()
	perCPU := make([]abi.Counter, ebpf.MustPossibleCPU())
	if err := m.reasons.Lookup(m.slots[iface]*abi.ReasonSlots+uint32(r), &perCPU); err != nil {
		t.Fatal(err)
	}
	for _, c := range perCPU {
		n += c.Packets
	}
	return n
}

// forgetFragments gives their table another seed, by which nothing is found there any more.
func (m *modelSite) forgetFragments() error {
	if err := m.maps[table.LimitSeed].Put(uint32(0), rand.Uint64()); err != nil {
		return fmt.Errorf("another seed of fragments: %w", err)
	}
	return nil
}

// clear empties the tables.
func (m *modelSite) clear() error {
	if err := m.forgetFragments(); err != nil {
		return err
	}
	for _, name := range modelTables {
		keys, err := rawKeys(m.maps[name])
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := m.maps[name].Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("clear %s: %w", name, err)
			}
		}
	}
	return nil
}

func rawKeys(m *ebpf.Map) ([][]byte, error) {
	var keys [][]byte
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		keys = append(keys, append([]byte{}, key...))
	}
	return keys, entries.Err()
}
