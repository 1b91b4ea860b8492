package xdp

import (
	"context"
	"errors"
	"fmt"
	"structs"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// ErrNoGeneration says that an interface has no live generation, so that its root alone decides: xdp.fail.
var ErrNoGeneration = errors.New("no XDP generation is live")

// Explanation is what the live generation of an interface would do with a frame.
type Explanation struct {
	Verdict abi.Fate // pass, drop, answer or redirect
	Reason  abi.Reason
	Rule    uint32   // stable id of the acting rule; 0: none acted
	Policy  int      // abi.PolicyIndex of the policy that decided, or -1 where none did
	Ifindex uint32   // of the interface, which rules may be limited to
	Filters []uint32 // slots of the FlowSpec filters that held for it, in their order
	More    bool     // other filters held besides
}

// xdpMD is the kernel's struct xdp_md, all in host order.
type xdpMD struct {
	_              structs.HostLayout
	Data           uint32
	DataEnd        uint32
	DataMeta       uint32
	IngressIfindex uint32
	RxQueueIndex   uint32
	EgressIfindex  uint32
}

// Explain runs the twin of the live generation on a frame, as if it came in by an interface. Nothing is counted and no
// state changes. The frame begins with its Ethernet header.
func (s *Subsystem) Explain(ctx context.Context, iface string, frame []byte) (Explanation, error) {
	if err := ctx.Err(); err != nil {
		return Explanation{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	device, err := interfaceByName(iface)
	if err != nil {
		return Explanation{}, err
	}
	dir := pin.At(s.dir)
	live, err := dir.Live(pin.Hook{Kind: hookKind, Interface: iface})
	if err != nil {
		return Explanation{}, err
	}
	if live == 0 {
		return Explanation{}, fmt.Errorf("%w on %s: its packets meet xdp.fail", ErrNoGeneration, iface)
	}
	g, digest, _, err := dir.FindGeneration(owner, live)
	if err != nil {
		return Explanation{}, err
	}
	defer g.Close()
	if err := s.addTwin(dir, g, digest); err != nil {
		return Explanation{}, err
	}
	return runTwin(g.Programs[explainProgram], g.Maps[explainedMap], device.Index, frame)
}

// PrepareExplain loads the twin of the live generation of an interface, which the first Explain would do.
func (s *Subsystem) PrepareExplain(ctx context.Context, iface string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := pin.At(s.dir)
	live, err := dir.Live(pin.Hook{Kind: hookKind, Interface: iface})
	if err != nil {
		return err
	}
	g, digest, _, err := dir.FindGeneration(owner, live)
	if err != nil {
		return err
	}
	return errors.Join(s.addTwin(dir, g, digest), g.Close())
}

// addTwin loads the twin of a generation that has none yet: most generations are never asked, and the verifier takes its
// time for it. It works on the same maps, and so goes on when they are rewritten.
func (s *Subsystem) addTwin(dir *pin.Dir, g *pin.Generation, digest string) error {
	if g.Programs[explainProgram] != nil {
		return nil
	}
	loader, done, err := s.beside(dir)
	if err != nil {
		return err
	}
	twin, err := loader.Twin(g, liveProgram)
	if err == nil {
		g.Programs[explainProgram] = twin
		err = dir.AddProgram(owner, digest, explainProgram, twin)
	}
	return errors.Join(err, done())
}

func runTwin(twin *ebpf.Program, explained *ebpf.Map, ifindex int, frame []byte) (Explanation, error) {
	if twin == nil || explained == nil {
		return Explanation{}, errors.New("the live generation has no explain twin: load it again with `sluice apply`")
	}
	const ethernet = 14 // the kernel runs nothing shorter
	if len(frame) < ethernet {
		return Explanation{}, fmt.Errorf("a frame of %d bytes has no Ethernet header", len(frame))
	}
	if err := explained.Put(uint32(0), abi.Explanation{}); err != nil {
		return Explanation{}, fmt.Errorf("empty the explanation: %w", err)
	}
	verdict, err := twin.Run(&ebpf.RunOptions{
		Data:    frame,
		Context: xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(ifindex)},
	})
	if err != nil {
		return Explanation{}, fmt.Errorf("run the explain twin: %w", err)
	}
	var said abi.Explanation
	if err := explained.Lookup(uint32(0), &said); err != nil {
		return Explanation{}, fmt.Errorf("read the explanation: %w", err)
	}
	e := Explanation{Verdict: fateOf(verdict), Reason: abi.Reason(said.Reason), Rule: said.Rule, Policy: -1, Ifindex: uint32(ifindex)}
	e.Filters, e.More = said.Matched()
	if said.Decided != 0 {
		e.Policy = int(said.Policy)
	}
	return e, nil
}

// fateOf reads enum xdp_action.
func fateOf(action uint32) abi.Fate {
	const pass, tx, redirect = 2, 3, 4
	switch action {
	case pass:
		return abi.FatePass
	case tx:
		return abi.FateAnswer
	case redirect:
		return abi.FateRedirect
	}
	return abi.FateDrop
}
