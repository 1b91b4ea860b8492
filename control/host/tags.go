package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A NIC may take the outermost VLAN tag out of a frame and hand it over beside it. XDP then sees an untagged frame. With the
// offload off the tag stays where it was, and what is behind it (VLAN interfaces, filters) sees the same as before: the
// kernel takes it out itself, after XDP.

// Tags says of a link that its NIC must leave VLAN tags in frames.
type Tags struct {
	Link string
	// InFrame is true in what is wanted. Observe finds false where somebody switched the offload on again.
	InFrame bool
}

// tagOffloads are for 802.1Q and 802.1ad.
var tagOffloads = []string{"rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"}

type (
	setTags  struct{ link string }
	dropTags struct{ link string }
)

func (setTags) Teardown() bool  { return false }
func (dropTags) Teardown() bool { return true }

func (o setTags) String() string  { return fmt.Sprintf("set link %s rx-vlan-offload off", o.link) }
func (o dropTags) String() string { return fmt.Sprintf("restore link %s rx-vlan-offload", o.link) }

// tagClaim is on the offloads of one link.
type tagClaim struct {
	Name  string   `json:"name"` // for readers only
	Index int      `json:"index"`
	Off   []string `json:"off,omitempty"` // those that were on before
}

func (l *ledger) tag(index int) *tagClaim {
	i := slices.IndexFunc(l.Tags, func(c tagClaim) bool { return c.Index == index })
	if i < 0 {
		return nil
	}
	return &l.Tags[i]
}

func diffTags(have, want []Tags) (set, drop []Op) {
	return diffList(have, want, func(t Tags) string { return t.Link },
		func(h, w Tags) bool { return h == w },
		func(t Tags) Op { return setTags{t.Link} }, func(t Tags) Op { return dropTags{t.Link} })
}

// takingOut are the offloads that take tags out of the frames of a link now, and those of them that cannot be switched off.
func takingOut(o offloads, link string) (on, fixed []string, err error) {
	features, err := o.read(link)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range tagOffloads {
		f := features[name]
		if f.on {
			on = append(on, name)
		}
		if f.on && f.fixed {
			fixed = append(fixed, name)
		}
	}
	return on, fixed, nil
}

func (h *Host) observeTags(links []netlink.Link) ([]Tags, error) {
	var out []Tags
	for _, l := range links {
		a := l.Attrs()
		if h.ledger.tag(a.Index) == nil {
			continue
		}
		on, _, err := takingOut(h.offloads, a.Name)
		if errors.Is(err, unix.ENODEV) { // it went since it was listed
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Tags{Link: a.Name, InFrame: len(on) == 0})
	}
	slices.SortFunc(out, func(a, b Tags) int { return strings.Compare(a.Link, b.Link) })
	return out, nil
}

// apply switches off what is on. What the driver leaves on is an error: rules would silently not match.
func (o setTags) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return err
	}
	on, fixed, err := takingOut(h.offloads, o.link)
	if err != nil {
		return err
	}
	if len(fixed) > 0 {
		return fmt.Errorf("%s is fixed on by the driver: no rule with vlan can match here", strings.Join(fixed, ", "))
	}
	undo, err := h.claimTags(link.Attrs(), on)
	if err != nil || len(on) == 0 {
		return err
	}
	if err := h.offloads.switchTo(o.link, on, false); err != nil {
		return unless(err, undo)
	}
	left, _, err := takingOut(h.offloads, o.link)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("the driver leaves %s on: no rule with vlan can match here", strings.Join(left, ", "))
	}
	if err != nil {
		_ = h.offloads.switchTo(o.link, on, true) // the wish at least is as it was
	}
	return unless(err, undo)
}

// claimTags keeps what was on before, once for the life of the claim.
func (h *Host) claimTags(a *netlink.LinkAttrs, on []string) (undo func() error, err error) {
	if h.ledger.tag(a.Index) != nil {
		return claimed, nil
	}
	return claim(h, &h.ledger.Tags, func() {
		h.ledger.Tags = append(h.ledger.Tags, tagClaim{Name: a.Name, Index: a.Index, Off: on})
	})
}

func (o dropTags) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return h.gone(err)
	}
	index := link.Attrs().Index
	c := h.ledger.tag(index)
	if c == nil {
		return nil
	}
	if len(c.Off) > 0 {
		if err := h.offloads.switchTo(o.link, c.Off, true); err != nil {
			return fmt.Errorf("back on: %w", err)
		}
	}
	h.ledger.Tags = filter(h.ledger.Tags, func(c tagClaim) bool { return c.Index != index })
	return h.save()
}
