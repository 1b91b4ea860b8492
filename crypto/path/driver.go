package path

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// Driver owns the blackholes of one network namespace: that of the thread which called New.
type Driver struct {
	log *slog.Logger

	mu         sync.Mutex
	nl, strict *netlink.Handle
}

// New returns a Driver that has touched nothing yet.
func New(log *slog.Logger) (*Driver, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE) // other families may be missing
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	strict, err := netdump.Strict()
	if err != nil {
		nl.Close()
		return nil, err
	}
	return &Driver{log: log, nl: nl, strict: strict}, nil
}

// Op is one step from one State towards another.
type Op struct {
	hole   Blackhole
	remove bool
	caught bool // what it is for is caught by another one meanwhile
}

// Teardown says whether the op takes something away.
func (o Op) Teardown() bool { return o.remove }

// Between says whether routes come first, so that no packet falls into the hole between them: a new one where an older one around it still
// catches what has no route, an old one where a new one does.
func (o Op) Between() bool { return o.caught }

// Builds says that each blackhole stands for itself.
func (Op) Builds() (what string, on []string) { return "", nil }

// String says what the op does, in one line.
func (o Op) String() string {
	verb, where := "add", ""
	if o.remove {
		verb = "remove"
	}
	if o.hole.Table != 0 {
		where = fmt.Sprintf(" in table %d", o.hole.Table)
	}
	return fmt.Sprintf("%s blackhole route %s%s", verb, o.hole.Prefix, where)
}

// Diff returns the ops that bring a machine from have to want. It is pure, and Diff(x, x) is empty.
func Diff(have, want State) []Op {
	var ops []Op
	missing, surplus := Difference(have.Blackholes, want.Blackholes)
	for _, b := range missing {
		ops = append(ops, Op{hole: b, caught: have.catches(b)})
	}
	for _, b := range surplus {
		ops = append(ops, Op{hole: b, remove: true, caught: want.catches(b)})
	}
	return ops
}

// catches says whether another blackhole has all of that prefix.
func (s State) catches(b Blackhole) bool {
	return slices.ContainsFunc(s.Blackholes, func(o Blackhole) bool {
		return o != b && o.Prefix.Bits() <= b.Prefix.Bits() && o.Prefix.Contains(b.Prefix.Addr())
	})
}

// Diff is the package's Diff.
func (d *Driver) Diff(have, want State) []Op { return Diff(have, want) }

// Observe reads the blackholes of our protocol.
func (d *Driver) Observe(ctx context.Context) (State, error) {
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	list, err := ourRoutes(d.strict, unix.RTN_BLACKHOLE)
	var s State
	for _, r := range list {
		s.Blackholes = append(s.Blackholes, Blackhole{Prefix: r.Prefix, Table: r.Table})
	}
	slices.SortFunc(s.Blackholes, Blackhole.Compare)
	return s, err
}

// Apply does one step. It is idempotent. A context that has ended stops it before the step.
func (d *Driver) Apply(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	dst := IPNet(op.hole.Prefix)
	route := &netlink.Route{
		Dst: &dst, Type: unix.RTN_BLACKHOLE, Protocol: Protocol, Priority: BlackholeMetric, Table: inKernel(op.hole.Table),
	}
	do := func() error { return put(d.nl, op.hole.Prefix, route) }
	if op.remove {
		do = func() error { return remove(d.nl, route) }
	}
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// Stop closes the driver; the blackholes stay.
func (d *Driver) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nl.Close()
	d.strict.Close()
}

// Down removes every blackhole of ours, going on after failures, which it returns together. It comes after the tunnels'.
func (d *Driver) Down(ctx context.Context) error {
	have, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, op := range Diff(have, State{}) {
		failed = append(failed, d.Apply(ctx, op))
	}
	return errors.Join(failed...)
}
