// Package engine plans and applies: it knows the subsystems as interfaces only, keeps the revisions, and goes back to
// the last good one when a step fails or a confirmation does not come.
package engine

import (
	"context"
	"fmt"

	"sluice/control/compile"
)

// Op is one step of a subsystem. Teardown ops take something away; the engine runs them after every other op, in
// reverse order of subsystems, but for announcements, which it withdraws first of all.
type Op interface {
	fmt.Stringer
	Teardown() bool
}

// Contained is what an Op may say of itself: that it changes nothing which another subsystem observes. After steps that are all
// contained only the subsystems that had some are verified.
type Contained interface{ Contained() bool }

// Between is what an Op may say of itself: that other steps are to find all that they need before it, as what it makes, or takes away, is
// for what has no other way, and what it is for has one meanwhile. It comes behind all that builds, and before all else that is torn down.
type Between interface{ Between() bool }

// Builder is what an Op may say of itself: what it makes that steps behind it build on, "" for nothing, and on what it builds itself, in
// words of its subsystem. An Op that does not say builds on all before it in its subsystem.
type Builder interface {
	Builds() (what string, on []string)
}

// Driver is what a subsystem offers. Observe returns what is there of ours, while others are observed, too. Diff is pure, and Diff(x, x) is empty;
// applying Diff(have, want) in order on a machine in state have brings it to want. Apply does one step and is
// idempotent: after a crash the same step may come again.
type Driver[S any, O Op] interface {
	Observe(ctx context.Context) (S, error)
	Diff(have, want S) []O
	Apply(ctx context.Context, op O) error
}

// Subsystem is a Driver with its types hidden, and with the part of Desired that is its own.
type Subsystem interface {
	Name() string
	Observe(ctx context.Context) (State, error)
	Diff(have, want State) []Op
	Apply(ctx context.Context, op Op) error
	Want(d *compile.Desired) State
}

// State is a subsystem's own State type.
type State any

// Bind hides the types of a driver. Want picks its State out of a Desired.
func Bind[S any, O Op](name string, d Driver[S, O], want func(*compile.Desired) S) Subsystem {
	return &bound[S, O]{name: name, driver: d, want: want}
}

type bound[S any, O Op] struct {
	name   string
	driver Driver[S, O]
	want   func(*compile.Desired) S
}

func (b *bound[S, O]) Name() string { return b.name }

func (b *bound[S, O]) Observe(ctx context.Context) (State, error) { return b.driver.Observe(ctx) }

func (b *bound[S, O]) Diff(have, want State) []Op {
	ops := b.driver.Diff(have.(S), want.(S))
	out := make([]Op, len(ops))
	for i, op := range ops {
		out[i] = op
	}
	return out
}

func (b *bound[S, O]) Apply(ctx context.Context, op Op) error { return b.driver.Apply(ctx, op.(O)) }

func (b *bound[S, O]) Want(d *compile.Desired) State { return b.want(d) }
