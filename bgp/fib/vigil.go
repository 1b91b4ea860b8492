package fib

import (
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// When the kernel has told of a carrier, of whatever link, it tells of the next one a second later at the earliest, and takes the routes by
// it as late (linkwatch; devices that stand on others are told of at once). Two ToRs that die together are just that, so for this second the
// carriers of next hops are looked at. To look is to see the truth: IFF_LOWER_UP is computed when it is asked for.
const (
	heldBack    = 1100 * time.Millisecond
	glanceEvery = 10 * time.Millisecond
)

// vigil ticks for a while.
type vigil struct {
	*time.Timer
	until time.Time
}

func newVigil() vigil {
	v := vigil{Timer: time.NewTimer(heldBack)}
	v.Stop()
	return v
}

func (v *vigil) begin() {
	v.until = time.Now().Add(heldBack)
	v.Reset(glanceEvery)
}

// glance acts on links that lost their carrier and are not told of yet.
func (t *Table) glance() {
	if time.Now().Before(t.vigil.until) {
		t.vigil.Reset(glanceEvery)
	}
	links := map[int]struct{}{}
	for _, w := range t.ways {
		for _, h := range w.hops { // a link that is known for lost is in none
			links[h.link] = struct{}{}
		}
	}
	for link := range links {
		if t.kernel.up(link) == nil {
			continue
		}
		if t.lost != nil {
			t.lost(link)
		}
		t.mu.Lock()
		t.news.down[link], t.news.moved = struct{}{}, true
		t.mu.Unlock()
	}
}

// carriers are the flags that the kernel last told of each link.
type carriers map[int]uint32

// changed says whether a message tells of a carrier, and not of something else of the link.
func (c carriers) changed(m syscall.NetlinkMessage) bool {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return false
	}
	i := nl.DeserializeIfInfomsg(m.Data)
	now := i.Flags & (unix.IFF_LOWER_UP | unix.IFF_RUNNING)
	was, known := c[int(i.Index)]
	if c[int(i.Index)] = now; m.Header.Type == unix.RTM_DELLINK {
		delete(c, int(i.Index))
	}
	return !known || was != now
}
