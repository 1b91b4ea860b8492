package progruntc_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"sluice/tests/flowmodel"
	"sluice/xdp/abi"
)

const (
	modelSteps  = 40
	modelFaults = 5                      // of one seed, then it is enough
	modelTime   = 6 * time.Second        // for each seed in the ordinary run
	modelStall  = 200 * time.Millisecond // a sequence takes 5.6 ms in CI: what takes 36 times as long was held up
	modelPlays  = 20                     // and is played again, so often
	modelShrink = 30 * time.Second       // then what is left of a sequence that fails is short enough
)

var modelSeeds = []uint64{20261121, 20261122}

// TestFlowsAndTranslations holds the programs against the reference model, and under pressure. SLUICE_MODEL_TIME says for how long
// generated sequences run, the last of them with a seed that nobody had; SLUICE_MODEL_SEED with which seed. The ordinary run has two
// fixed ones.
func TestFlowsAndTranslations(t *testing.T) {
	m := newModelSite(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"a flood takes nothing from proven flows, nor from the other side's", m.aFloodTakesNothing},
		{"one owner has half of the table at most, and a full one takes nobody", m.oneOwnerHasHalf},
		{"no two flows share a translation", m.noTwoFlowsShareATranslation},
		{"packets in any order are what the model says", m.followsTheModel},
	} {
		m.sub(t, part.name, func(t *testing.T) {
			if err := m.clear(); err != nil {
				t.Fatal(err)
			}
			part.test(t)
		})
	}
}

func (m *modelSite) followsTheModel(t *testing.T) {
	seeds, wait := modelSeeds, modelTime
	if text := os.Getenv("SLUICE_MODEL_TIME"); text != "" {
		var err error
		if wait, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{modelSeeds[0], uint64(time.Now().UnixNano())}
	}
	if text := os.Getenv("SLUICE_MODEL_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		n, packets := m.sequences(t, seed, wait)
		t.Logf("seed %d: %d sequences, %d packets", seed, n, packets)
	}
}

// sequences tries one after the other until the time is over or one fails.
func (m *modelSite) sequences(t *testing.T, seed uint64, wait time.Duration) (n, packets int) {
	t.Helper()
	failed := 0
	for end := time.Now().Add(wait); time.Now().Before(end) && failed < modelFaults; n++ {
		g := &flowmodel.Generator{Rng: rand.New(rand.NewPCG(seed, uint64(n))), World: m.world, Cast: modelCast()}
		steps := g.Sequence(modelSteps)
		fault := m.fault(t, steps, &packets)
		if fault == nil {
			continue
		}
		if m.fault(t, steps, &packets) == nil {
			t.Logf("seed %d, sequence %d disagreed once, and not again: %v", seed, n, fault)
			continue
		}
		enough := time.Now().Add(modelShrink)
		short := flowmodel.Shrink(steps, func(s []flowmodel.Step) bool {
			return time.Now().Before(enough) && m.fault(t, s, &packets) != nil
		})
		if again := m.fault(t, short, &packets); again != nil {
			fault = again
		}
		t.Errorf("seed %d, sequence %d: %v\n%s", seed, n, fault, flowmodel.Lines(short))
		failed++
	}
	return n, packets
}

// fault plays a sequence until it agrees, or disagrees and nothing stood still: the programs' clock cannot be stopped, the model's does.
func (m *modelSite) fault(t *testing.T, steps []flowmodel.Step, packets *int) (err error) {
	t.Helper()
	for range modelPlays {
		began := time.Now()
		if err = m.play(t, steps, packets); err == nil || time.Since(began) < modelStall {
			return err
		}
	}
	return err
}

// play runs a sequence from empty tables.
func (m *modelSite) play(t *testing.T, steps []flowmodel.Step, packets *int) error {
	t.Helper()
	if err := m.clear(); err != nil {
		t.Fatal(err)
	}
	model, had, known := flowmodel.NewModel(m.world), births{}, epochs{}
	for i, s := range steps {
		if err := m.step(t, model, had, s, packets); err != nil {
			return fmt.Errorf("step %d: %s: %w", i+1, s, err)
		}
		if i%4 < 3 && i+1 < len(steps) && s.Hops != nil && steps[i+1].Hops != nil {
			continue // packets follow each other within a tick, too
		}
		if err := m.compare(model, had, known); err != nil {
			return fmt.Errorf("after step %d: %s: %w", i+1, s, err)
		}
	}
	return nil
}

func (m *modelSite) step(t *testing.T, model *flowmodel.Model, had births, s flowmodel.Step, packets *int) error {
	t.Helper()
	switch {
	case s.Pass != 0:
		return m.age(had, model.Pass(s.Pass))
	case s.Switch != 0:
		model.Switch(s.Switch - 1)
		return nil
	case s.Sweep:
		return nil
	}
	p, mark := model.At(s), uint32(0)
	for i, h := range s.Hops {
		*packets++
		o, err := m.try(t, model, h, p, mark)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", h.Hook, p, err)
		}
		if i+1 == len(s.Hops) {
			return nil
		}
		var goes bool
		if p, mark, goes = o.Next(s.Hops[i+1]); !goes {
			return nil
		}
	}
	return nil
}

// try runs one packet at one hook through both.
func (m *modelSite) try(t *testing.T, model *flowmodel.Model, h flowmodel.Hop, p flowmodel.Packet, mark uint32) (flowmodel.Outcome, error) {
	t.Helper()
	likely := model.Clone().Run(h.Hook, h.From, p, mark, nil).Reason
	verdict, left, after, reason := m.send(t, model.Live, h, p, mark, likely)
	o := model.Run(h.Hook, h.From, p, mark, &flowmodel.Observed{Source: sourceOf(left), Reason: reason})
	if !o.Allows(reason) {
		return o, fmt.Errorf("the reason is %s, want %s %v", reason, o.Reason, o.Also)
	}
	if o.Fault != "" {
		return o, fmt.Errorf("%s", o.Fault)
	}
	want := uint32(tcxNext)
	switch {
	case o.Drops():
		want = tcxDrop
	case o.To != "":
		want = tcxRedirect
	}
	if verdict != want {
		return o, fmt.Errorf("the program returned %d, want %d (%s)", int32(verdict), int32(want), reason)
	}
	if o.Drops() {
		return o, nil
	}
	frame := o.Left.Frame(m.macs[h.Interface])
	if reason == abi.ReasonForwarded && o.To != "" && bytes.Equal(left[:12], append(bytes.Clone(modelNeighbor), m.macs[o.To]...)) { // within a tick of one before it
		copy(frame, left[:12])
		o.Mark |= after & abi.MarkPassed
	}
	if !bytes.Equal(frame, left) {
		return o, fmt.Errorf("the packet left as\n%x, want\n%x (%s)", left, frame, o.Left)
	}
	if after != o.Mark {
		return o, fmt.Errorf("the mark is %#x, want %#x", after, o.Mark)
	}
	if model.Leaks(h, o) {
		return o, fmt.Errorf("it left from %s", o.Left.Src)
	}
	return o, model.Check()
}

// sourceOf reads address and port, or the id of an echo request, from a frame; of a fragment with IPv6, the address alone.
func sourceOf(frame []byte) netip.AddrPort {
	if len(frame) < 14+20+8 {
		return netip.AddrPort{}
	}
	ip := frame[14:]
	src, protocol, l4 := netip.AddrFrom4([4]byte(ip[12:])), ip[9], 20
	if ip[0]>>4 == 6 {
		src, protocol, l4 = netip.AddrFrom16([16]byte(ip[8:])), ip[6], 40
		if protocol == 44 {
			protocol, l4 = ip[40], 48
		}
	}
	switch at := ip[l4:]; protocol {
	case 1, 58:
		if at[0] == 8 || at[0] == 128 {
			return netip.AddrPortFrom(src, binary.BigEndian.Uint16(at[4:]))
		}
	case 6, 17, 132, 136:
		return netip.AddrPortFrom(src, binary.BigEndian.Uint16(at))
	}
	return netip.AddrPortFrom(src, 0)
}
