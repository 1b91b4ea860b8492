package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// Departure times are kept by fq alone: at the root of a link with one transmit queue, and below mq of one with several.

// Qdisc says of a link that its queueing discipline must keep departure times.
type Qdisc struct {
	Link string
	// FQ is true in what is wanted. Observe finds false where somebody put another one there.
	FQ bool
}

type (
	setQdisc  struct{ link string }
	dropQdisc struct{ link string }
)

func (setQdisc) Teardown() bool  { return false }
func (dropQdisc) Teardown() bool { return true }

func (o setQdisc) String() string  { return fmt.Sprintf("set link %s qdisc fq", o.link) }
func (o dropQdisc) String() string { return fmt.Sprintf("restore link %s qdisc", o.link) }

// qdiscClaim is on the queueing discipline of one link.
type qdiscClaim struct {
	Name  string       `json:"name"` // for readers only
	Index int          `json:"index"`
	Was   *formerQdisc `json:"was,omitempty"` // nil: the kernel's default, or fq already
}

// formerQdisc is one that somebody put there before us, as the kernel told it and takes it back.
type formerQdisc struct {
	Handle  uint32 `json:"handle"`
	Kind    string `json:"kind"`
	Options []byte `json:"options,omitempty"`
}

func (l *ledger) qdisc(index int) *qdiscClaim {
	i := slices.IndexFunc(l.Qdiscs, func(c qdiscClaim) bool { return c.Index == index })
	if i < 0 {
		return nil
	}
	return &l.Qdiscs[i]
}

func diffQdiscs(have, want []Qdisc) (set, drop []Op) {
	return diffList(have, want, func(q Qdisc) string { return q.Link },
		func(h, w Qdisc) bool { return h == w },
		func(q Qdisc) Op { return setQdisc{q.Link} }, func(q Qdisc) Op { return dropQdisc{q.Link} })
}

// fairQueue is what keeps departure times. Tests have another one, where the kernel lacks fq.
type fairQueue struct {
	kind    string
	options []byte // TCA_OPTIONS
}

// newFairQueue has room for what waits for its time: 50 ms of 1 Gbit/s in full frames are 4,166. The kernel's own limits (100 a
// flow, 10,000 in all) would drop it unseen.
func newFairQueue() fairQueue {
	const limit, flowLimit = 50_000, 5_000 // packets
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_FQ_PLIMIT, nl.Uint32Attr(limit))
	options.AddRtAttr(nl.TCA_FQ_FLOW_PLIMIT, nl.Uint32Attr(flowLimit))
	return fairQueue{"fq", options.Serialize()[unix.SizeofRtAttr:]}
}

// ourQdisc is the handle of what we put at the root: "1bc:".
const ourQdisc = 0x1bc << 16

// qdiscs are those of one link, but for the hooks ingress and clsact, which queue nothing.
type qdiscs []qdisc

type qdisc struct {
	handle, parent uint32
	kind           string
	options        []byte
}

// root is nil where there is none: the link is down, or has never been up.
func (list qdiscs) root() *qdisc {
	i := slices.IndexFunc(list, func(q qdisc) bool { return q.parent == netlink.HANDLE_ROOT })
	if i < 0 {
		return nil
	}
	return &list[i]
}

// departs says whether departure times are kept.
func (list qdiscs) departs(by string) bool {
	root := list.root()
	if root == nil || root.kind != "mq" {
		return root != nil && root.kind == by
	}
	below := slices.DeleteFunc(slices.Clone(list), func(q qdisc) bool { return q.parent == netlink.HANDLE_ROOT })
	return len(below) > 0 && !slices.ContainsFunc(below, func(q qdisc) bool { return q.kind != by })
}

// simple are disciplines without classes that the kernel takes back as it told them.
var simple = []string{"pfifo", "bfifo", "pfifo_fast", "fq_codel", "codel", "sfq", "cake", "pie", "fq_pie"}

// foreign says what somebody put there that we cannot give back; "": nothing. What the kernel puts there itself has no handle.
func (list qdiscs) foreign() string {
	root := list.root()
	if root == nil || root.handle == 0 || root.handle == ourQdisc || slices.Contains(simple, root.kind) {
		return ""
	}
	return fmt.Sprintf("%s %x:", root.kind, root.handle>>16)
}

func qdiscRequest(command, flags, index int, handle, parent uint32) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(command, flags)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index), Handle: handle, Parent: parent})
	return req
}

// qdiscsOf lists those of a link of the calling thread's network namespace.
func qdiscsOf(index int) (qdiscs, error) {
	messages, err := netdump.List(func() ([][]byte, error) {
		return qdiscRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP, index, 0, 0).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	})
	if err != nil {
		return nil, fmt.Errorf("list queueing disciplines: %w", err)
	}
	var out qdiscs
	for _, m := range messages {
		msg := nl.DeserializeTcMsg(m)
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return nil, fmt.Errorf("list queueing disciplines: %w", err)
		}
		q := qdisc{handle: msg.Handle, parent: msg.Parent}
		for _, a := range attrs {
			switch a.Attr.Type {
			case nl.TCA_KIND:
				q.kind = unix.ByteSliceToString(a.Value)
			case nl.TCA_OPTIONS:
				q.options = slices.Clone(a.Value)
			}
		}
		if int(msg.Ifindex) == index && q.parent != netlink.HANDLE_INGRESS { // clsact's is the same
			out = append(out, q)
		}
	}
	return out, nil
}

// putQdisc puts one in place of another.
func putQdisc(index int, q qdisc) error {
	req := qdiscRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK, index, q.handle, q.parent)
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(q.kind)))
	if len(q.options) > 0 {
		req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, q.options))
	}
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("queueing discipline %s: %w", q.kind, err)
	}
	return nil
}

// deleteQdisc takes ours from the root.
func deleteQdisc(index int) error {
	if _, err := qdiscRequest(unix.RTM_DELQDISC, unix.NLM_F_ACK, index, ourQdisc, netlink.HANDLE_ROOT).Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("remove our queueing discipline: %w", err)
	}
	return nil
}

func (h *Host) observeQdiscs(links []netlink.Link) ([]Qdisc, error) {
	var out []Qdisc
	for _, l := range links {
		a := l.Attrs()
		if h.ledger.qdisc(a.Index) == nil {
			continue
		}
		list, err := qdiscsOf(a.Index)
		if err != nil {
			return nil, err
		}
		out = append(out, Qdisc{Link: a.Name, FQ: list.departs(h.fq.kind)})
	}
	slices.SortFunc(out, func(a, b Qdisc) int { return strings.Compare(a.Link, b.Link) })
	return out, nil
}

// apply leaves fq that is there already as it is. What it cannot give back it does not take, but for what came after us.
func (o setQdisc) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return err
	}
	a := link.Attrs()
	list, err := qdiscsOf(a.Index)
	if err != nil {
		return err
	}
	kept := list.departs(h.fq.kind)
	first := h.ledger.qdisc(a.Index) == nil
	if what := list.foreign(); what != "" && first && !kept {
		return fmt.Errorf("%s was put there by somebody, and could not be given back: remove it, or put fq into it", what)
	}
	undo, err := h.claimQdisc(a, list)
	if err != nil || kept {
		return err
	}
	if err = h.putFQ(a, list); err == nil || !first {
		return err
	}
	return unless(errors.Join(err, h.restoreQdisc(a)), undo)
}

// putFQ replaces what is at the root. What waits there is lost, as with tc(8).
func (h *Host) putFQ(a *netlink.LinkAttrs, list qdiscs) error {
	if a.NumTxQueues <= 1 {
		return putQdisc(a.Index, qdisc{ourQdisc, netlink.HANDLE_ROOT, h.fq.kind, h.fq.options})
	}
	if root := list.root(); root == nil || root.handle != ourQdisc {
		if err := putQdisc(a.Index, qdisc{ourQdisc, netlink.HANDLE_ROOT, "mq", nil}); err != nil {
			return err
		}
	}
	for queue := range a.NumTxQueues { // those that are not in use as well: ethtool -L may take them
		if err := putQdisc(a.Index, qdisc{0, ourQdisc | uint32(queue+1), h.fq.kind, h.fq.options}); err != nil {
			return err
		}
	}
	return nil
}

// claimQdisc keeps what was there before, once for the life of the claim.
func (h *Host) claimQdisc(a *netlink.LinkAttrs, list qdiscs) (undo func() error, err error) {
	if h.ledger.qdisc(a.Index) != nil {
		return claimed, nil
	}
	c := qdiscClaim{Name: a.Name, Index: a.Index}
	if root := list.root(); root != nil && root.handle != 0 && root.handle != ourQdisc && !list.departs(h.fq.kind) {
		c.Was = &formerQdisc{root.handle, root.kind, root.options}
	}
	return claim(h, &h.ledger.Qdiscs, func() { h.ledger.Qdiscs = append(h.ledger.Qdiscs, c) })
}

// restoreQdisc takes ours away, if it is there: the kernel puts its default in its place.
func (h *Host) restoreQdisc(a *netlink.LinkAttrs) error {
	list, err := qdiscsOf(a.Index)
	if err != nil {
		return err
	}
	if root := list.root(); root == nil || root.handle != ourQdisc {
		return nil
	}
	if c := h.ledger.qdisc(a.Index); c != nil && c.Was != nil {
		return putQdisc(a.Index, qdisc{c.Was.Handle, netlink.HANDLE_ROOT, c.Was.Kind, c.Was.Options})
	}
	return deleteQdisc(a.Index)
}

func (o dropQdisc) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return h.gone(err)
	}
	a := link.Attrs()
	if h.ledger.qdisc(a.Index) == nil {
		return nil
	}
	if err := h.restoreQdisc(a); err != nil {
		return err
	}
	h.ledger.Qdiscs = filter(h.ledger.Qdiscs, func(c qdiscClaim) bool { return c.Index != a.Index })
	return h.save()
}
