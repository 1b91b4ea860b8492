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
	Verdict abi.Fate // pass, drop or answer
	Reason  abi.Reason
	Rule    uint32 // stable id of the acting rule; 0: none acted
	Policy  int    // abi.PolicyIndex of the policy that decided, or -1 where none did
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
	g, _, _, err := dir.FindGeneration(owner, live)
	if err != nil {
		return Explanation{}, err
	}
	defer g.Close()
	return runTwin(g.Programs[explainProgram], g.Maps[explainedMap], device.Index, frame)
}

func runTwin(twin *ebpf.Program, explained *ebpf.Map, ifindex int, frame []byte) (Explanation, error) {
	if twin == nil || explained == nil {
		return Explanation{}, errors.New("the live generation has no explain twin: load it again with `sluice apply`")
	}
	const ethernet = 14 // the kernel runs nothing shorter
	if len(frame) < ethernet {
		return Explanation{}, fmt.Errorf("a frame of %d bytes has no Ethernet header", len(frame))
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
	e := Explanation{Verdict: abi.FateDrop, Reason: abi.Reason(said.Reason), Rule: said.Rule, Policy: -1}
	switch verdict {
	case xdpPass:
		e.Verdict = abi.FatePass
	case xdpTX:
		e.Verdict = abi.FateAnswer
	}
	if said.Decided != 0 {
		e.Policy = int(said.Policy)
	}
	return e, nil
}

// Of enum xdp_action.
const (
	xdpPass = 2
	xdpTX   = 3
)
