package fib

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// group is a nexthop object that routes share. One that follows next hops (via) is exchanged in one step when these are reached otherwise, however
// many routes go by it; a route that may not go everywhere has a group that is of its hops alone.
type group struct {
	id     uint32
	key    string       // "": of an earlier life, nobody's yet
	via    []netip.Addr // next hops as learned, those without a way included
	hops   []hop        // what the kernel has
	routes int          // installed ones
	last   *held        // that was written
}

// record is how a route by the group is held.
func (g *group) record(at place, via []netip.Addr) *held {
	if g.last == nil || g.last.place != at || !slices.Equal(g.last.via, via) {
		g.last = &held{place: at, group: g.id, via: via}
	}
	return g.last
}

// groups are our nexthop objects. An id is never given twice: the kernel takes objects, and the routes by them, away with a link without a word, and a
// route by an id that is gone is known for gone.
type groups struct {
	kernel  kernel
	last    uint32 // id given
	members map[hop]uint32
	of      map[uint32]*group
	keyed   map[string]*group
}

// adopt starts with what the kernel has.
func (g *groups) adopt() error {
	list, err := g.kernel.objects()
	if err != nil {
		return err
	}
	g.last, g.members = max(g.last, firstObject), map[hop]uint32{}
	hops, there := map[uint32]hop{}, map[uint32]bool{}
	for _, o := range list {
		g.last = max(g.last, o.id)
		if len(o.members) == 0 {
			g.members[o.hop], hops[o.id] = o.id, o.hop
		}
	}
	for _, o := range list {
		if len(o.members) == 0 {
			continue
		}
		there[o.id] = true
		one := g.of[o.id]
		if one == nil {
			one = &group{id: o.id}
			g.of[o.id] = one
		}
		one.hops = nil
		for _, m := range o.members {
			one.hops = append(one.hops, hops[m]) // one that is not ours is the zero hop, which none wants
		}
		slices.SortFunc(one.hops, hop.compare)
	}
	for id, one := range g.of {
		if !there[id] {
			g.forget(one)
		}
	}
	return nil
}

// choose is the group of a choice.
func (g *groups) choose(c *choice) (*group, error) {
	if one := c.by; one != nil && g.of[one.id] == one && g.keyed[one.key] == one {
		return one, g.set(one, c.hops)
	}
	follows := c.via
	if c.alone {
		follows = nil
	}
	var err error
	c.by, err = g.take(keyOf(follows, c.hops), follows, c.hops)
	return c.by, err
}

// take is the group of a key with these hops, made or changed as it has to be. An error may leave it with some of them.
func (g *groups) take(key string, via []netip.Addr, hops []hop) (*group, error) {
	one := g.keyed[key]
	if one == nil {
		for _, left := range g.of {
			if left.key == "" && slices.Equal(left.hops, hops) {
				one = left
				break
			}
		}
	}
	if one == nil {
		one = &group{}
	}
	err := g.set(one, hops)
	if one.id == 0 {
		return nil, err
	}
	one.key, one.via, g.keyed[key] = key, via, one
	return one, err
}

// set gives a group these hops; none: the group goes, and the kernel drops the routes by it.
func (g *groups) set(one *group, hops []hop) error {
	if len(hops) == 0 {
		g.forget(one)
		return g.kernel.delete(one.id)
	}
	if one.id != 0 && slices.Equal(one.hops, hops) {
		return nil
	}
	var ids []uint32
	var failed error
	var got []hop
	for _, h := range hops {
		id, err := g.member(h)
		if err != nil {
			failed = fmt.Errorf("next hop %s: %w", h.addr, err)
			continue
		}
		ids, got = append(ids, id), append(got, h)
	}
	if len(ids) == 0 {
		return failed
	}
	if one.id != 0 {
		if err := g.kernel.setGroup(unix.NLM_F_REPLACE, one.id, ids); err != nil {
			return err
		}
		one.hops = got
		return failed
	}
	id, err := g.free(func(id uint32) error { return g.kernel.setGroup(unix.NLM_F_CREATE|unix.NLM_F_EXCL, id, ids) })
	if err != nil {
		return err
	}
	one.id, one.hops, g.of[id] = id, got, one
	return failed
}

func (g *groups) member(h hop) (uint32, error) {
	if id, known := g.members[h]; known {
		return id, nil
	}
	id, err := g.free(func(id uint32) error { return g.kernel.addMember(id, h) })
	if err == nil {
		g.members[h] = id
	}
	return id, err
}

// free finds an id that nobody has.
func (g *groups) free(add func(id uint32) error) (uint32, error) {
	for {
		g.last = max(g.last+1, firstObject+1)
		if err := add(g.last); !errors.Is(err, unix.EEXIST) {
			return g.last, err
		}
	}
}

// lose takes out what the kernel has taken out with a link. That it is gone is made sure of: what a flap left would be told apart from what
// it took by nothing.
func (g *groups) lose(link int) (touched []*group, failed error) {
	for h, id := range g.members {
		if h.link == link {
			delete(g.members, h)
			failed = errors.Join(failed, g.kernel.delete(id))
		}
	}
	for _, one := range g.of {
		left := slices.DeleteFunc(slices.Clone(one.hops), func(h hop) bool { return h.link == link })
		if len(left) == len(one.hops) {
			continue
		}
		touched = append(touched, one)
		// What sockets remember of their way may still be the lost link when the kernel has taken the hop out (seen on 6.18: 29 of 64 UDP
		// flows right afterwards); an exchange has all of them look again.
		one.hops = nil
		failed = errors.Join(failed, g.set(one, left))
	}
	return touched, failed
}

// gateways are those of all groups.
func (g *groups) gateways() map[uint32][]netip.Addr {
	out := make(map[uint32][]netip.Addr, len(g.of))
	for id, one := range g.of {
		out[id] = addresses(one.hops)
	}
	return out
}

func (g *groups) forget(one *group) {
	delete(g.of, one.id)
	if g.keyed[one.key] == one {
		delete(g.keyed, one.key)
	}
}

// collect removes what no route goes by.
func (g *groups) collect() (failed error) {
	used := map[hop]bool{}
	for _, one := range g.of {
		if one.routes > 0 {
			for _, h := range one.hops {
				used[h] = true
			}
			continue
		}
		g.forget(one)
		failed = errors.Join(failed, g.kernel.delete(one.id))
	}
	for h, id := range g.members {
		if !used[h] {
			delete(g.members, h)
			failed = errors.Join(failed, g.kernel.delete(id))
		}
	}
	return failed
}

// keyOf names a group by what it follows, or, where that is nothing, by what it holds.
func keyOf(via []netip.Addr, hops []hop) string {
	var key strings.Builder
	for _, addr := range via {
		key.WriteString(addr.String() + " ")
	}
	if via == nil {
		fmt.Fprint(&key, "only ", hops)
	}
	return key.String()
}
