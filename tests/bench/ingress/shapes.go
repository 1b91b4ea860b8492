package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"structs"

	"github.com/cilium/ebpf"

	"sluice/tests/bench/lane"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
	"sluice/xdp/packet"
)

const shapeRules = 500

// shape sends packets through the rules of one shape, three times each: by the reference model, by the tables in Go,
// and by the loaded XDP programs, the live one and the twin that says which rule it was.
func (b *bench) shape(ctx context.Context, of classifytest.Shape, packets int) (out ShapeResult, err error) {
	rng := rand.New(rand.NewPCG(11, 11))
	policy := classify.Policy{Name: "ingress", Default: classify.Accept, Rules: classifytest.Rules(rng, of, shapeRules)}
	generation := xdp.Generation{
		Failsafe: classify.Policy{Name: "failsafe"}, System: classify.Policy{Name: "system"}, Ingress: policy, FlowSlots: 1024,
	}
	tables, err := classify.Compile([]classify.Policy{policy})
	if err != nil {
		return out, err
	}
	site, gen, closer, err := liveGeneration(ctx, b.w, xdp.State{
		Interfaces: []xdp.Interface{{Name: lane.Uplink, Mode: xdp.Native}}, Generation: generation, Digest: generation.Digest(),
	})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, closer()) }()
	out = ShapeResult{Shape: string(of), Rules: shapeRules}
	err = site.Box.Do(func() error {
		for out.Packets < packets {
			if err := ctx.Err(); err != nil {
				return err
			}
			for _, p := range classifytest.Packets(rng, []classify.Policy{policy}, min(4096, packets-out.Packets)) {
				if err := out.judge(site, gen.Programs["live"], gen.Programs["explain"], gen.Maps["explained"], policy, tables, p); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return out, err
}

// judge asks all of them for one packet: what a frame of it shows, so that nothing is judged that no frame can carry.
func (r *ShapeResult) judge(site *lane.Site, live, twin *ebpf.Program, explained *ebpf.Map, policy classify.Policy, tables *classify.Tables, p classify.Packet) error {
	spec := packet.Spec{Src: p.Src, Dst: p.Dst, Protocol: p.Protocol, TTL: p.TTL, SrcPort: p.SrcPort, DstPort: p.DstPort,
		Fragment: p.Fragment, More: p.Fragment}
	if p.NonFirst {
		spec.Offset = 1480
	}
	frame, err := spec.Frame()
	if err != nil {
		return fmt.Errorf("%+v: %w", p, err)
	}
	seen := spec.Seen()
	want, eval := classify.Judge(policy, seen), tables.Eval(0, seen)
	r.Packets++
	if want.Action == classify.Drop {
		r.Dropped++
	}
	if eval.Action != want.Action || eval.Rule != want.Rule || eval.Reason != want.Reason {
		r.disagree(spec, fmt.Sprintf("the tables in Go say %+v, the model %+v", eval, want))
	}
	options := ebpf.RunOptions{Data: frame, Context: uplinkContext{DataEnd: uint32(len(frame)), Ifindex: uint32(site.UplinkIndex)}}
	verdict, err := live.Run(&options)
	if err != nil {
		return err
	}
	if _, err := twin.Run(&options); err != nil {
		return err
	}
	var said abi.Explanation
	if err := explained.Lookup(uint32(0), &said); err != nil {
		return err
	}
	const xdpDrop = 1
	if (verdict == xdpDrop) != (want.Action == classify.Drop) || said.Fate != verdict || said.Rule != want.Rule {
		r.disagree(spec, fmt.Sprintf("XDP says %d, %s by rule %d; the model %+v", verdict, abi.Reason(said.Reason), said.Rule, want))
	}
	return nil
}

func (r *ShapeResult) disagree(p packet.Spec, how string) {
	if r.Disagreements++; r.First == "" {
		r.First = p.String() + ": " + how
	}
}

// uplinkContext is struct xdp_md.
type uplinkContext struct {
	_                                            structs.HostLayout
	Data, DataEnd, DataMeta, Ifindex, Queue, Out uint32
}
