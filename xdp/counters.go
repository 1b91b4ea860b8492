package xdp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// Count is a number of packets and of their bytes, Ethernet headers included.
type Count struct{ Packets, Bytes uint64 }

// Counters are sums over all CPUs since the interface was first attached, or the rule's id was first used. What is zero
// is left out.
type Counters struct {
	Interfaces []InterfaceCounters
	// Rules counts by stable id what matched the rules of the live generations, shadow rules included. tc counts its
	// packets into the same map, so that a rule that both judge has one number.
	Rules map[uint32]Count
}

// InterfaceCounters are those of one interface. Name is "" for packets of interfaces that are unknown, such as the
// members of a bond.
type InterfaceCounters struct {
	Name    string
	Reasons map[abi.Reason]Count
}

// Counters reads every counter of this subsystem.
func (s *Subsystem) Counters(ctx context.Context) (Counters, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hooks, err := s.observeHooks(ctx)
	if err != nil || len(hooks) == 0 {
		return Counters{}, err
	}
	maps, err := openState(s.dir)
	if err != nil {
		return Counters{}, err
	}
	defer maps.Close()
	out := Counters{Rules: map[uint32]Count{}}
	hooks = append([]hookState{{}}, hooks...) // slot 0: unknown
	for i, h := range hooks {
		if i > 0 && h.slot == 0 {
			continue // not attached
		}
		reasons, err := readReasons(maps.reasons, h.slot)
		if err != nil {
			return Counters{}, err
		}
		if i > 0 || len(reasons) > 0 {
			out.Interfaces = append(out.Interfaces, InterfaceCounters{Name: h.hook.Interface, Reasons: reasons})
		}
	}
	return out, s.readRules(hooks, out.Rules)
}

func readReasons(m *ebpf.Map, slot uint32) (map[abi.Reason]Count, error) {
	reasons := map[abi.Reason]Count{}
	for reason := range abi.ReasonMax {
		c, err := sum(m, slot*abi.ReasonSlots+uint32(reason))
		if err != nil {
			return nil, err
		}
		if c != (Count{}) {
			reasons[reason] = c
		}
	}
	return reasons, nil
}

// readRules reads the counters of the rules that the live generations have.
func (s *Subsystem) readRules(hooks []hookState, out map[uint32]Count) error {
	hits, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath("rule-hits", ruleHitsVersion), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rule counters: %w", err)
	}
	defer hits.Close()
	seen := map[string]bool{"": true}
	for _, h := range hooks {
		if seen[h.digest] {
			continue
		}
		seen[h.digest] = true
		ids, err := ruleIDs(pin.At(s.dir), h.digest)
		if err != nil {
			return err
		}
		for _, id := range ids {
			c, err := sum(hits, id)
			if err != nil {
				return err
			}
			if c != (Count{}) {
				out[id] = c
			}
		}
	}
	return nil
}

// ruleIDs reads the ids from the rule table itself: after a restart nobody else knows them.
func ruleIDs(dir *pin.Dir, digest string) ([]uint32, error) {
	g, err := dir.LoadGeneration(owner, digest)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	m := g.Maps[rulesMap]
	if m == nil {
		return nil, nil
	}
	keys, rules := make([]uint32, m.MaxEntries()), make([]abi.Rule, m.MaxEntries())
	var cursor ebpf.MapBatchCursor
	n, err := m.BatchLookup(&cursor, keys, rules, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // which says that these were all
		return nil, fmt.Errorf("rule table: %w", err)
	}
	var ids []uint32
	for _, r := range rules[:n] {
		if r.ID != 0 {
			ids = append(ids, r.ID)
		}
	}
	return ids, nil
}

func sum(m *ebpf.Map, index uint32) (Count, error) {
	var (
		perCPU []abi.Counter
		total  Count
	)
	if err := m.Lookup(index, &perCPU); err != nil {
		return total, fmt.Errorf("counter %d: %w", index, err)
	}
	for _, c := range perCPU {
		total.Packets += c.Packets
		total.Bytes += c.Bytes
	}
	return total, nil
}

// Status is what `show interfaces` tells about XDP.
type Status struct {
	Interface  string
	Mode       Mode   // "": the root is not attached
	Why        string // why it runs in generic mode, where that was not asked for
	FailOpen   bool
	Generation string // digest; "": none that is known
	Program    ebpf.ProgramID
}

// Status reports every interface that has or had a root, sorted by name.
func (s *Subsystem) Status(ctx context.Context) ([]Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hooks, err := s.observeHooks(ctx)
	if err != nil {
		return nil, err
	}
	var out []Status
	for _, h := range hooks {
		out = append(out, Status{Interface: h.hook.Interface, Mode: h.mode, Why: s.reason[h.hook.Interface],
			FailOpen: h.failOpen, Generation: h.digest, Program: h.live})
	}
	return out, nil
}

// Facts are what is known about the machine's XDP without trying anything out.
func (s *Subsystem) Facts(ctx context.Context) (Facts, error) {
	status, err := s.Status(ctx)
	if err != nil {
		return Facts{}, err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Facts{}, fmt.Errorf("uname: %w", err)
	}
	f := Facts{KernelRelease: unix.ByteSliceToString(name.Release[:]), Native: map[string]string{}}
	for _, i := range status {
		switch {
		case i.Mode == Native:
			f.Native[i.Interface] = ""
		case i.Mode == Generic && i.Why != "":
			f.Native[i.Interface] = i.Why
		}
	}
	return f, nil
}
