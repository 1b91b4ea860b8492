package xdp

import (
	"context"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// Count is a number of packets and of their bytes, Ethernet headers included.
type Count = table.Count

// Counters are sums over all CPUs since the interface was first attached. What is zero is left out.
type Counters struct{ Interfaces []InterfaceCounters }

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
	maps, err := s.openState()
	if err != nil {
		return Counters{}, err
	}
	defer maps.Close()
	var out Counters
	hooks = append([]hookState{{}}, hooks...) // slot 0: unknown
	for i, h := range hooks {
		if i > 0 && h.slot == 0 {
			continue // not attached
		}
		reasons, err := table.Reasons(maps.reasons, h.slot)
		if err != nil {
			return Counters{}, err
		}
		if i > 0 || len(reasons) > 0 {
			out.Interfaces = append(out.Interfaces, InterfaceCounters{Name: h.hook.Interface, Reasons: reasons})
		}
	}
	return out, nil
}

// LimitPressure tells how full the table of limited sources is; tc's packets use the same one.
func (s *Subsystem) LimitPressure(context.Context) (table.Pressure, error) {
	return table.ReadPressure(pin.At(s.dir))
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
