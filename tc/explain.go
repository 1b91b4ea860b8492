package tc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"structs"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// ErrNoGeneration says that an interface has no live generation, so that the kernel alone decides.
var ErrNoGeneration = errors.New("no tc generation is live")

// Explanation is what the live generation of an interface would do with a frame.
type Explanation struct {
	Verdict    abi.Fate // stack: passed, to the kernel's own path
	Reason     abi.Reason
	Rule       uint32 // stable id of the acting rule; 0: none acted
	Policy     int    // index into Generation.Policies() of the policy that was asked last, or -1 where none was
	Ifindex    uint32 // of the interface, which rules may be limited to
	RedirectTo string // interface; "": not redirected
	// Source is what the source becomes at the uplink, Destination what the destination became at the uplink. Port 0: one that is
	// chosen when the packet is sent, or the protocol has none. Invalid: not translated.
	Source, Destination netip.AddrPort
	MSS                 uint16   // what a SYN's becomes at a tunnel; 0: it stays
	Filters             []uint32 // slots of the FlowSpec filters that held for it, in their order
	More                bool     // other filters held besides
}

// skBuff is the beginning of the kernel's struct __sk_buff, all in host order. What a test run may set are mark and
// both interfaces.
type skBuff struct {
	_              structs.HostLayout
	_              [2]uint32 // len, pkt_type
	Mark           uint32
	_              [5]uint32 // queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto
	Priority       uint32
	IngressIfindex uint32
	Ifindex        uint32
}

// Explain runs the twin of the live generation on a frame, as if it came in by an interface, or with egress as if the
// box itself sent it. Nothing is counted and no state changes. The frame begins with an Ethernet header, even where the
// interface has none; a unicast destination in it is replaced by the interface's own.
func (s *Subsystem) Explain(ctx context.Context, iface string, egress bool, frame []byte) (Explanation, error) {
	return s.explain(ctx, iface, skBuff{}, egress, "", frame)
}

// ExplainForwarded is Explain for a frame that leaves by an interface, having come in by another, whose hook left it to the kernel.
func (s *Subsystem) ExplainForwarded(ctx context.Context, iface, from string, frame []byte) (Explanation, error) {
	return s.explain(ctx, iface, skBuff{}, true, from, frame)
}

// ExplainRedirected is Explain for a frame that leaves by an interface, to which the ingress hook of another has redirected it.
func (s *Subsystem) ExplainRedirected(ctx context.Context, iface, from string, frame []byte) (Explanation, error) {
	return s.explain(ctx, iface, skBuff{Mark: abi.MarkJudged}, true, from, frame)
}

// explain completes as, which says what is known of the packet besides.
func (s *Subsystem) explain(ctx context.Context, iface string, as skBuff, egress bool, from string, frame []byte) (Explanation, error) {
	if err := ctx.Err(); err != nil {
		return Explanation{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	device, err := deviceByName(iface)
	if err != nil {
		return Explanation{}, err
	}
	as.Ifindex = uint32(device.Index)
	if from != "" {
		incoming, err := deviceByName(from)
		if err != nil {
			return Explanation{}, err
		}
		as.IngressIfindex = uint32(incoming.Index)
	}
	dir := pin.At(s.dir)
	hook := pin.Hook{Kind: ingressKind, Interface: iface}
	if egress {
		hook.Kind = egressKind
	}
	live, err := dir.Live(hook)
	if err != nil {
		return Explanation{}, err
	}
	if live == 0 {
		return Explanation{}, fmt.Errorf("%w at %s: its packets are left to the kernel", ErrNoGeneration, hook)
	}
	g, key, name, err := dir.FindGeneration(owner, live)
	if err != nil {
		return Explanation{}, err
	}
	defer g.Close()
	if err := s.addTwin(dir, g, key, name); err != nil {
		return Explanation{}, err
	}
	return runTwin(g, name, device, as, frame)
}

// PrepareExplain loads the twins of the live generations of all hooks, which the first Explain of each would do.
func (s *Subsystem) PrepareExplain(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := pin.At(s.dir)
	live, err := dir.LivePrograms(kinds[:]...)
	if err != nil {
		return err
	}
	for id := range live {
		g, key, name, err := dir.FindGeneration(owner, id)
		if err != nil {
			return err
		}
		if err := errors.Join(s.addTwin(dir, g, key, name), g.Close()); err != nil {
			return err
		}
	}
	return nil
}

// addTwin loads the twin of a program that has none yet: most generations are never asked, and the verifier takes its
// time for it. It works on the same maps, and so goes on when they are rewritten.
func (s *Subsystem) addTwin(dir *pin.Dir, g *pin.Generation, key, name string) error {
	if g.Programs[twinPrefix+name] != nil {
		return nil
	}
	loader, done, err := s.beside(dir)
	if err != nil {
		return err
	}
	twin, err := loader.Twin(g, name)
	if err == nil {
		g.Programs[twinPrefix+name] = twin
		err = dir.AddProgram(owner, key, twinPrefix+name, twin)
	}
	return errors.Join(err, done())
}

func runTwin(g *pin.Generation, name string, device *netlink.LinkAttrs, as skBuff, frame []byte) (Explanation, error) {
	twin, explained := g.Programs[twinPrefix+name], g.Maps[tcMapExplained]
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
	_, err := twin.Run(&ebpf.RunOptions{
		Data:    addressed(frame, device.HardwareAddr),
		Context: as,
	})
	if err != nil {
		return Explanation{}, fmt.Errorf("run the explain twin: %w", err)
	}
	var said abi.Explanation
	if err := explained.Lookup(uint32(0), &said); err != nil {
		return Explanation{}, fmt.Errorf("read the explanation: %w", err)
	}
	e := Explanation{Reason: abi.Reason(said.Reason), Rule: said.Rule, Policy: -1, Ifindex: uint32(device.Index), MSS: said.MSS}
	e.Verdict = e.Reason.Fate()
	e.Filters, e.More = said.Matched()
	if said.Decided != 0 {
		e.Policy = int(said.Policy)
	}
	if said.Ifindex != 0 {
		e.RedirectTo = interfaceName(int(said.Ifindex))
	}
	other := netip.AddrPortFrom(netip.AddrFrom16(said.NatAddr).Unmap(), binary.BigEndian.Uint16(said.NatPort[:]))
	switch abi.ExplainedNat(said.Nat) {
	case abi.ExplainedSource:
		e.Source = other
	case abi.ExplainedDestination:
		e.Destination = other
	}
	return e, nil
}

// addressed sends a unicast frame to the interface: the kernel would take another's for what it only overhears.
func addressed(frame []byte, mac net.HardwareAddr) []byte {
	out := slices.Clone(frame)
	if out[0]&1 == 0 {
		var to [6]byte
		copy(to[:], mac)
		copy(out, to[:])
	}
	return out
}

func interfaceName(index int) string {
	device, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("interface %d", index)
	}
	return device.Attrs().Name
}
