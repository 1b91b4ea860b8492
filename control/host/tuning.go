package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tunable is one kind of setting of the hardware, which a driver reads and writes at once.
type Tunable string

// What can be tuned: of a link, and CPUGovernor of the machine.
const (
	Queues      Tunable = "queues"       // "": how many
	Rings       Tunable = "rings"        // rx, tx: descriptors
	Offloads    Tunable = "offloads"     // by the names of offloadFeatures: on, off
	Coalescing  Tunable = "coalesce"     // adaptive-rx, adaptive-tx: on, off; rx-usecs, tx-usecs
	FlowControl Tunable = "flow-control" // rx, tx: on, off
	IRQAffinity Tunable = "irq-affinity" // "": auto, or a list of CPUs
	CPUGovernor Tunable = "cpu-governor" // "": its name
)

// Values are settings by their names; "" names the only one.
type Values map[string]string

// Tuning is what should be set, or is set of ours. Link is "" for the machine's.
type Tuning struct {
	Link   string
	What   Tunable
	Values Values
}

type tuningID struct {
	link string
	what Tunable
}

func (t Tuning) id() tuningID { return tuningID{t.Link, t.What} }

// String is the setting as a plan tells it.
func (id tuningID) String() string {
	if id.link == "" {
		return string(id.what)
	}
	return "link " + id.link + " " + string(id.what)
}

func (v Values) String() string {
	var words []string
	for _, k := range sortedKeys(v) {
		words = append(words, strings.TrimPrefix(k+" "+v[k], " "))
	}
	return strings.Join(words, " ")
}

// of are the values of v by the names of names.
func (v Values) of(names Values) Values {
	out := Values{}
	for k := range names {
		if now, there := v[k]; there {
			out[k] = now
		}
	}
	return out
}

// tuner reads and writes one Tunable. A link of "" is the machine.
type tuner interface {
	// resolve puts a wish into the hardware's own terms, as things are now: which interrupt goes to which CPU, say.
	resolve(link string, want Values) (Values, error)
	// read returns everything that there is, in those terms.
	read(link string) (Values, error)
	// write sets these, in those terms, and nothing else.
	write(link string, v Values) error
}

// freezer is a tuner that may be unable to change anything for a while, or to say how things are: then they are as they were set.
type freezer interface{ frozen(link string) error }

type (
	setTuning  struct{ Tuning }
	dropTuning struct{ tuningID }
)

func (setTuning) Teardown() bool  { return false }
func (dropTuning) Teardown() bool { return true }

func (setTuning) Builds() (what string, on []string) { return "", nil }

func (o setTuning) String() string  { return fmt.Sprintf("set %s %s", o.id(), o.Values) }
func (o dropTuning) String() string { return "restore " + o.tuningID.String() }

// tuningClaim is on one Tunable of a link.
type tuningClaim struct {
	Name   string  `json:"name,omitempty"` // for readers only
	Index  int     `json:"index,omitempty"`
	What   Tunable `json:"what"`
	Values Values  `json:"values"` // wanted
	Before Values  `json:"before"` // in the hardware's terms
}

func (l *ledger) tuning(index int, what Tunable) *tuningClaim {
	i := slices.IndexFunc(l.Tunings, func(c tuningClaim) bool { return c.Index == index && c.What == what })
	if i < 0 {
		return nil
	}
	return &l.Tunings[i]
}

// diffTunings sets what interrupts are about last, behind links that are up: drivers have interrupts for queues once these run, and other
// settings make the driver ask for them anew.
func diffTunings(have, want []Tuning, late bool) (set, drop []Op) {
	some := func(t Tuning) bool { return late == (t.What == IRQAffinity) }
	return diffList(filter(have, some), filter(want, some), Tuning.id, func(h, w Tuning) bool { return maps.Equal(h.Values, w.Values) },
		func(t Tuning) Op { return setTuning{t} }, func(t Tuning) Op { return dropTuning{t.id()} })
}

func compareTunings(a, b Tuning) int {
	return cmp.Or(strings.Compare(a.Link, b.Link), strings.Compare(string(a.What), string(b.What)))
}

func (h *Host) observeTunings(links []netlink.Link) []Tuning {
	names := linkNames(links)
	var out []Tuning
	for _, c := range h.ledger.Tunings {
		name, here := names[c.Index]
		if !here && c.Index != 0 {
			continue
		}
		now, err := h.tuned(name, c)
		if errors.Is(err, unix.ENODEV) || errors.Is(err, errUnknown) {
			continue
		}
		if err != nil { // the step that sets it says why; everything else of the machine is none the worse
			now = Values{"error": err.Error()}
		}
		out = append(out, Tuning{Link: name, What: c.What, Values: now})
	}
	slices.SortFunc(out, compareTunings)
	return out
}

// errUnknown says that another version of Sluice made a claim of this boot.
var errUnknown = errors.New("this version does not know how to set it")

// tuned is the wish of a claim where it is fulfilled, else what there is instead.
func (h *Host) tuned(link string, c tuningClaim) (Values, error) {
	t := h.tuners[c.What]
	if t == nil {
		return nil, errUnknown
	}
	if frozen(t, link) != nil {
		return c.Values, nil
	}
	now, err := t.read(link)
	if err != nil {
		return nil, err
	}
	want, err := t.resolve(link, c.Values)
	if err != nil {
		return nil, err
	}
	if is := now.of(want); !maps.Equal(is, want) {
		return is, nil
	}
	return c.Values, nil
}

// index is that of a link, 0 for the machine.
func (h *Host) index(link string) (int, error) {
	if link == "" {
		return 0, nil
	}
	l, err := h.link(link)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

func (o setTuning) apply(_ context.Context, h *Host) error {
	index, err := h.index(o.Link)
	if err != nil {
		return err
	}
	t := h.tuners[o.What]
	if err := frozen(t, o.Link); err != nil {
		if c := h.ledger.tuning(index, o.What); c != nil && maps.Equal(c.Values, o.Values) {
			return nil
		}
		return err
	}
	want, err := t.resolve(o.Link, o.Values)
	if err != nil {
		return err
	}
	now, err := t.read(o.Link)
	if err != nil {
		return err
	}
	before := now.of(want)
	dropped := Values{} // of ours, and not wanted any more
	if c := h.ledger.tuning(index, o.What); c != nil {
		for k, v := range c.Before {
			if _, still := now[k]; still && want[k] == "" {
				dropped[k] = v
			}
		}
		maps.Copy(before, c.Before.of(want))
	}
	// What is dropped stays claimed until it is back.
	held := maps.Clone(before)
	maps.Copy(held, dropped)
	undo, err := h.claimTuning(tuningClaim{Name: o.Link, Index: index, What: o.What, Values: o.Values, Before: held})
	if err != nil {
		return err
	}
	changes := maps.Clone(want)
	maps.Copy(changes, dropped)
	maps.DeleteFunc(changes, func(k, v string) bool { return now[k] == v })
	if len(changes) > 0 {
		if err := writeAndSee(t, o.Link, changes); err != nil {
			_ = t.write(o.Link, now.of(changes)) // what it took of them
			return unless(err, undo)
		}
	}
	_, err = h.claimTuning(tuningClaim{Name: o.Link, Index: index, What: o.What, Values: o.Values, Before: before})
	return err
}

func frozen(t tuner, link string) error {
	if f, can := t.(freezer); can {
		return f.frozen(link)
	}
	return nil
}

// writeAndSee fails also where the driver made something else of a value: drivers round.
func writeAndSee(t tuner, link string, v Values) error {
	if err := t.write(link, v); err != nil {
		return err
	}
	now, err := t.read(link)
	if err != nil {
		return err
	}
	if is := now.of(v); !maps.Equal(is, v) {
		return fmt.Errorf("the driver makes %q of %q", is, v)
	}
	return nil
}

// claimTuning replaces the claim on the same Tunable.
func (h *Host) claimTuning(c tuningClaim) (undo func() error, err error) {
	return claim(h, &h.ledger.Tunings, func() {
		if old := h.ledger.tuning(c.Index, c.What); old != nil {
			*old = c
			return
		}
		h.ledger.Tunings = append(h.ledger.Tunings, c)
	})
}

func (o dropTuning) apply(_ context.Context, h *Host) error {
	index, err := h.index(o.link)
	if err != nil {
		return h.gone(err)
	}
	c := h.ledger.tuning(index, o.what)
	if c == nil {
		return nil
	}
	t := h.tuners[o.what]
	if err := frozen(t, o.link); err != nil {
		return err
	}
	now, err := t.read(o.link)
	if err != nil {
		return err
	}
	back := maps.Clone(c.Before)
	maps.DeleteFunc(back, func(k, v string) bool { return now[k] == v || now[k] == "" }) // an interrupt may be another's by now
	if len(back) > 0 {
		if err := t.write(o.link, back); err != nil {
			return fmt.Errorf("back to %s: %w", back, err)
		}
	}
	h.ledger.Tunings = filter(h.ledger.Tunings, func(c tuningClaim) bool { return c.Index != index || c.What != o.what })
	return h.save()
}
