package ban

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Query chooses bans.
type Query struct {
	About netip.Prefix // those that cover it, and those within it; invalid: all
	By    string       // "": anybody's
	Why   string       // a part of the reason, in any case of letters
	Limit int          // the first so many by target; 0: all
}

func (q Query) keeps(e *entry) bool {
	return (!q.About.IsValid() || e.Target.Overlaps(q.About)) && (q.By == "" || e.By == q.By) &&
		strings.Contains(strings.ToLower(e.Why), strings.ToLower(q.Why))
}

// All returns every ban that holds, by target.
func (l *List) All() ([]Shown, error) {
	all, _, err := l.Some(Query{})
	return all, err
}

// Some returns the bans that hold and that a query chooses, by target, and how many there are beyond its limit, too.
func (l *List) Some(q Query) (out []Shown, total int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil {
		return nil, 0, l.failed // reading opens nothing, which would make it
	}
	var chosen []*entry
	for _, e := range l.bans {
		if l.live(e) && q.keeps(e) {
			chosen = append(chosen, e)
		}
	}
	slices.SortFunc(chosen, func(a, b *entry) int {
		return cmp.Or(a.Target.Addr().Compare(b.Target.Addr()), cmp.Compare(a.Target.Bits(), b.Target.Bits()))
	})
	if total = len(chosen); q.Limit > 0 {
		chosen = chosen[:min(q.Limit, total)] // the kernel is asked for what each dropped
	}
	boot := l.opts.Clock.Boot()
	for _, e := range chosen {
		s := Shown{Ban: l.ban(e)}
		if e.end != 0 {
			s.Remaining = e.end - boot
		}
		packets, last, err := l.table.Hits(e.Target)
		if err != nil {
			return nil, 0, err
		}
		if s.Packets = packets; last > 0 {
			s.LastHit = l.opts.Clock.Now().Add(last - boot)
		}
		out = append(out, s)
	}
	return out, total, nil
}
