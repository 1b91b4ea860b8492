package tc

import (
	"fmt"
	"slices"

	"sluice/plural"
)

// OpKind says what an Op does.
type OpKind int

// The kinds, in the order in which Diff gives them.
const (
	Load   OpKind = iota + 1 // load a generation and switch the slots of all wanted interfaces to it
	Attach                   // attach the roots of an interface, whose slots are filled already
	Detach                   // take the roots of an interface off, with their slots
)

// Op is one step of this subsystem.
type Op struct {
	Kind      OpKind
	Interface Interface // Attach, Detach
	State     State     // Load: the generation, its digest, and the interfaces whose slots get it
}

// String is the line that `plan` prints.
func (o Op) String() string {
	switch o.Kind {
	case Load:
		return fmt.Sprintf("load tc generation %.12s and switch %s to it", o.State.Digest, plural.Of(len(o.State.Interfaces), "interface", "interfaces"))
	case Attach:
		return fmt.Sprintf("attach tcx on %s as %s", o.Interface.Name, o.Interface.Role)
	case Detach:
		return "detach tcx from " + o.Interface.Name
	}
	return fmt.Sprintf("unknown tc operation %d", o.Kind)
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

// Diff returns the operations that bring have to want. A generation holds the table of interfaces, so any change of
// theirs loads one. A new interface gets its slots filled by the Load before its roots are attached, so that its first
// packet is judged. Without interfaces there is nothing to load.
func (s *Subsystem) Diff(have, want State) []Op { return diff(have, want) }

func diff(have, want State) []Op {
	var ops, attach, detach []Op
	load := have.Digest != want.Digest
	for _, w := range want.Interfaces {
		h, ok := find(have.Interfaces, w.Name)
		load = load || h != w
		if !ok || h.Role == RoleNone && w.Role != RoleNone {
			attach = append(attach, Op{Kind: Attach, Interface: w})
		}
	}
	for _, h := range have.Interfaces {
		if _, ok := find(want.Interfaces, h.Name); !ok {
			load = true // or packets that come in there would keep the role it had
			detach = append(detach, Op{Kind: Detach, Interface: h})
		}
	}
	if load && len(want.Interfaces) > 0 {
		ops = append(ops, Op{Kind: Load, State: want})
	}
	return append(append(ops, attach...), detach...)
}

func find(list []Interface, name string) (Interface, bool) {
	i := slices.IndexFunc(list, func(i Interface) bool { return i.Name == name })
	if i < 0 {
		return Interface{}, false
	}
	return list[i], true
}

// String is the role as the file writes it.
func (r Role) String() string {
	names := [NumRoles]string{"none", "uplink", "downstream", "workload", "tunnel", "management"}
	if r >= NumRoles {
		return fmt.Sprintf("role-%d", uint8(r))
	}
	return names[r]
}
