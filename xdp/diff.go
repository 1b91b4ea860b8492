package xdp

import (
	"fmt"
	"slices"

	"sluice/plural"
)

// OpKind says what an Op does.
type OpKind int

// The kinds, in the order in which Diff gives them.
const (
	Load    OpKind = iota + 1 // load a generation and switch the slots of all wanted interfaces to it
	SetFail                   // change what a root does while its slot is empty
	Attach                    // attach a root whose slot is filled already
	Detach                    // take a root off, with its slot
)

// Op is one step of this subsystem.
type Op struct {
	Kind      OpKind
	Interface Interface // Attach, SetFail, Detach
	Was       Mode      // Attach: how the root was attached before; "": not at all
	State     State     // Load: the generation, its digest, and the interfaces whose slots get it
}

// String is the line that `plan` prints.
func (o Op) String() string {
	switch o.Kind {
	case Load:
		return fmt.Sprintf("load XDP generation %.12s and switch %s to it", o.State.Digest, plural.Of(len(o.State.Interfaces), "interface", "interfaces"))
	case SetFail:
		return fmt.Sprintf("set xdp.fail of %s to %s", o.Interface.Name, failText(o.Interface.FailOpen))
	case Attach:
		if o.Was != "" {
			return fmt.Sprintf("re-attach XDP on %s in mode %s (was %s): packets pass unjudged for some milliseconds",
				o.Interface.Name, o.Interface.Mode, o.Was)
		}
		return fmt.Sprintf("attach XDP on %s in mode %s", o.Interface.Name, o.Interface.Mode)
	case Detach:
		return "detach XDP from " + o.Interface.Name
	}
	return fmt.Sprintf("unknown XDP operation %d", o.Kind)
}

// Teardown says that the operation only takes away.
func (o Op) Teardown() bool { return o.Kind == Detach }

// Builds says that a root is attached only above a slot that is filled, and each interface stands for itself.
func (o Op) Builds() (what string, on []string) {
	switch o.Kind {
	case Load:
		return "generation", nil
	case Attach:
		return "", []string{"generation"}
	}
	return "", nil
}

func failText(open bool) string {
	if open {
		return "open"
	}
	return "closed"
}

// Diff returns the operations that bring have to want. A new interface gets its slot filled by the Load before its root
// is attached, so that its first packet is judged. Without interfaces there is nothing to load.
func (s *Subsystem) Diff(have, want State) []Op { return diff(have, want) }

func diff(have, want State) []Op {
	var ops, attach, fail []Op
	load := len(want.Interfaces) > 0 && have.Digest != want.Digest
	for _, w := range want.Interfaces {
		h, ok := find(have.Interfaces, w.Name)
		switch {
		case !ok || !satisfies(h.Mode, w.Mode):
			attach = append(attach, Op{Kind: Attach, Interface: w, Was: h.Mode})
			load = load || h.Mode == "" // its slot may be missing, or of another generation
		case h.FailOpen != w.FailOpen:
			fail = append(fail, Op{Kind: SetFail, Interface: w})
		}
	}
	if load {
		ops = append(ops, Op{Kind: Load, State: want})
	}
	ops = append(append(ops, fail...), attach...)
	for _, h := range have.Interfaces {
		if _, ok := find(want.Interfaces, h.Name); !ok {
			ops = append(ops, Op{Kind: Detach, Interface: h})
		}
	}
	return ops
}

func find(list []Interface, name string) (Interface, bool) {
	i := slices.IndexFunc(list, func(i Interface) bool { return i.Name == name })
	if i < 0 {
		return Interface{}, false
	}
	return list[i], true
}

// satisfies says whether a root in mode have is what want asks for. What fell back to generic under auto stays so until
// it is attached again: trying native once more would interrupt the interface.
func satisfies(have, want Mode) bool {
	return have == want || want == Auto && have != ""
}
