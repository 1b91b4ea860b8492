package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/bgp/bfd"
)

// kind is what an Op does.
type kind uint8

const (
	start kind = iota // (re)start the speaker: nothing else of the State survives
	learn
	filter // which FlowSpec rules count
	originate
	setNeighbor    // a new session at this address, whatever was there
	relaxNeighbor  // what needs no new session
	detect         // the BFD sessions, all of them
	withdraw       // from here on: Teardown
	removeNeighbor // Cease
	stop           // Cease to all, and no speaker
)

// Op is one step. Ops are pure data and carry no secret. Only the fields of its kind are set.
type Op struct {
	kind     kind
	speaker  State      // start: ASN, RouterID, Port
	heirs    []Neighbor // start: those that are left the FlowSpec rules of the neighbors of before
	learn    Learn
	flowSpec FlowSpec
	prefix   netip.Prefix // originate, withdraw
	paths    []Path       // originate: all of the prefix
	neighbor Neighbor     // removeNeighbor: name and address
	reset    bool         // setNeighbor: there is one at this address
	bfd      []bfd.Config
	why      string
}

// Teardown reports whether the step takes something away.
func (o Op) Teardown() bool { return o.kind >= withdraw }

// Builds says that no session begins, or changes, before it is known what is believed of it.
func (o Op) Builds() (what string, on []string) {
	switch o.kind {
	case start:
		return "speaker", nil
	case learn, filter:
		return "policy", []string{"speaker"}
	case setNeighbor, relaxNeighbor:
		return "", []string{"speaker", "policy"}
	}
	return "", []string{"speaker"}
}

// String is the line that a plan prints.
func (o Op) String() string {
	switch o.kind {
	case start:
		return fmt.Sprintf("start bgp speaker as %d id %s port %d%s", o.speaker.ASN, o.speaker.RouterID, o.speaker.Port, o.why)
	case learn:
		return o.learn.String()
	case filter:
		return o.flowSpec.String()
	case originate:
		return fmt.Sprintf("announce %s%s", o.prefix, describe(o.paths))
	case setNeighbor:
		verb := map[bool]string{true: "reset", false: "add"}[o.reset]
		return fmt.Sprintf("%s neighbor %s (%s as %d)%s", verb, o.neighbor.Name, o.neighbor.Address, o.neighbor.ASN, o.why)
	case relaxNeighbor:
		return fmt.Sprintf("change neighbor %s (%s): %s", o.neighbor.Name, o.neighbor.Address, o.why)
	case detect:
		return "set bfd sessions:" + sessionList(o.bfd)
	case withdraw:
		return fmt.Sprintf("withdraw %s", o.prefix)
	case removeNeighbor:
		return fmt.Sprintf("remove neighbor %s (%s)", o.neighbor.Name, o.neighbor.Address)
	}
	return "stop bgp speaker"
}

// sessionList prints BFD sessions with their intervals.
func sessionList(sessions []bfd.Config) string {
	if len(sessions) == 0 {
		return " none"
	}
	out := ""
	for _, c := range sessions {
		out += fmt.Sprintf(" %s (%v x %d)", c.Peer, c.MinTx, c.Multiplier)
	}
	return out
}

// Diff returns the steps from have to want, in order: paths before the neighbors that hear them, teardown last. It is
// also right when the engine runs withdrawals first or all teardown at the very end. Diff(x, x) is empty. Addresses
// of neighbors and prefixes of paths must be unique.
func Diff(have, want State) []Op {
	have, want = have.normal(), want.normal()
	if !want.running() {
		if have.running() {
			return []Op{{kind: stop}}
		}
		return nil
	}
	var ops []Op
	if have.identity() != want.identity() {
		first := Op{kind: start, speaker: State{ASN: want.ASN, RouterID: want.RouterID, Port: want.Port}, heirs: want.Neighbors}
		if len(have.Neighbors) > 0 {
			first.why = ": all sessions are reset"
		}
		ops, have = append(ops, first), first.on(have)
	}
	if !have.Learn.equal(want.Learn) {
		ops = append(ops, Op{kind: learn, learn: want.Learn})
	}
	if !have.FlowSpec.equal(want.FlowSpec) {
		ops = append(ops, Op{kind: filter, flowSpec: want.FlowSpec})
	}
	ops = append(ops, diffPaths(have.Paths, want.Paths)...)
	ops = append(ops, diffNeighbors(have.Neighbors, want.Neighbors)...)
	// All at once: a start finds sessions that an earlier process left, and those that stay must not flap.
	if !slices.Equal(have.BFD, want.BFD) {
		ops = append(ops, Op{kind: detect, bfd: want.BFD})
	}
	return ops
}

func diffPaths(have, want []Path) (ops []Op) {
	old, now := byPrefix(have), byPrefix(want)
	for prefix, paths := range now.all() {
		if !slices.EqualFunc(old.of[prefix], paths, Path.equal) {
			ops = append(ops, Op{kind: originate, prefix: prefix, paths: paths})
		}
	}
	for prefix := range old.all() {
		if now.of[prefix] == nil {
			ops = append(ops, Op{kind: withdraw, prefix: prefix})
		}
	}
	return ops
}

func diffNeighbors(have, want []Neighbor) (ops []Op) {
	old := make(map[netip.Addr]Neighbor, len(have))
	for _, n := range have {
		old[n.Address] = n
	}
	for _, n := range want {
		o, ok := old[n.Address]
		switch {
		case !ok:
			ops = append(ops, Op{kind: setNeighbor, neighbor: n})
		case o == n:
		case o.session() == n.session():
			ops = append(ops, Op{kind: relaxNeighbor, neighbor: n, why: o.changes(n)})
		default:
			op := Op{kind: setNeighbor, neighbor: n, reset: true}
			if o.PasswordFile == anotherPassword && n.PasswordFile != "" {
				op.why = ": new password"
			}
			ops = append(ops, op)
		}
		delete(old, n.Address)
	}
	for _, n := range have {
		if _, gone := old[n.Address]; gone {
			ops = append(ops, Op{kind: removeNeighbor, neighbor: Neighbor{Name: n.Name, Address: n.Address}})
		}
	}
	return ops
}

// on returns the State after the step: the model that the properties of Diff are proved on, and the mirror that
// Observe answers from.
func (o Op) on(s State) State {
	switch o.kind {
	case start:
		return o.speaker
	case learn:
		s.Learn = o.learn
	case filter:
		s.FlowSpec = o.flowSpec
	case originate, withdraw:
		s.Paths = slices.DeleteFunc(slices.Clone(s.Paths), func(p Path) bool { return p.Prefix == o.prefix })
		s.Paths = append(s.Paths, o.paths...)
	case setNeighbor, relaxNeighbor, removeNeighbor:
		s.Neighbors = slices.DeleteFunc(slices.Clone(s.Neighbors),
			func(n Neighbor) bool { return n.Address == o.neighbor.Address })
		if o.kind != removeNeighbor {
			s.Neighbors = append(s.Neighbors, o.neighbor)
		}
	case detect:
		s.BFD = o.bfd
	case stop:
		return State{}
	}
	return s.normal()
}

func (s State) running() bool { return s.RouterID.IsValid() }

// identity is what a running speaker cannot change.
func (s State) identity() [3]any { return [3]any{s.ASN, s.RouterID, s.Port} }

// session is n without what may change while it is up.
func (n Neighbor) session() Neighbor {
	n.Name, n.Limit, n.Keepalive, n.ConnectRetry = "", PrefixLimit{}, 0, 0
	n.Shutdown, n.Reason, n.NextHop4, n.NextHop6, n.FallOver, n.FirstAS = false, "", netip.Addr{}, netip.Addr{}, false, false
	return n
}

// changes names what a session takes while it is up.
func (n Neighbor) changes(to Neighbor) string {
	var out []string
	add := func(changed bool, format string, args ...any) {
		if changed {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(n.Name != to.Name, "name")
	add(n.Limit != to.Limit, "max prefixes %d", to.Limit.Max)
	add(n.FirstAS != to.FirstAS, "%s", map[bool]string{true: "paths begin with its AS", false: "paths begin with any AS"}[to.FirstAS])
	add(n.FallOver != to.FallOver, "%s", map[bool]string{true: "ends with its link", false: "outlives its link"}[to.FallOver])
	add(n.Keepalive != to.Keepalive || n.ConnectRetry != to.ConnectRetry, "timers of the next session")
	add(n.NextHop4 != to.NextHop4 || n.NextHop6 != to.NextHop6, "next hops")
	add(n.Shutdown != to.Shutdown, "%s", map[bool]string{true: "shut down", false: "no longer shut down"}[to.Shutdown])
	add(n.Reason != to.Reason, "reason of a shutdown")
	return strings.Join(out, ", ")
}

// normal returns s sorted, with empty lists nil. Without a speaker nothing is held.
func (s State) normal() State {
	if !s.running() {
		return State{}
	}
	s.Neighbors = sorted(s.Neighbors, func(a, b Neighbor) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Address.Compare(b.Address))
	})
	s.FlowSpec.AcceptFrom = sorted(s.FlowSpec.AcceptFrom, netip.Addr.Compare)
	s.FlowSpec.Blackholes.AcceptFrom = sorted(s.FlowSpec.Blackholes.AcceptFrom, netip.Addr.Compare)
	s.FlowSpec.Blackholes.Within = sorted(s.FlowSpec.Blackholes.Within, netip.Prefix.Compare)
	s.Paths = normalPaths(s.Paths)
	s.BFD = sorted(s.BFD, bfd.Config.Compare)
	return s
}

func sorted[T any](in []T, by func(a, b T) int) []T {
	if len(in) == 0 {
		return nil
	}
	out := slices.Clone(in)
	slices.SortFunc(out, by)
	return out
}

func (f FlowSpec) equal(g FlowSpec) bool {
	return f.MaxRules == g.MaxRules && f.Keep == g.Keep && slices.Equal(f.AcceptFrom, g.AcceptFrom) && f.Blackholes.equal(g.Blackholes)
}

func (b Blackholes) equal(c Blackholes) bool {
	return b.Max == c.Max && b.Keep == c.Keep && slices.Equal(b.AcceptFrom, c.AcceptFrom) && slices.Equal(b.Within, c.Within)
}
