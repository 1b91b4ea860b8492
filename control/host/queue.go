package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Queue is what packets wait in before they leave by a link.
type Queue struct {
	// NoFQ says why departure times cannot be kept there; "": they are, or would be once fq is put there.
	NoFQ string
}

// QueuesOf looks at the named interfaces of the calling thread's network namespace. Those that are not here are left out. It
// changes nothing, but to ask the kernel for fq may load its module.
func QueuesOf(ctx context.Context, names []string) (map[string]Queue, error) {
	out := map[string]Queue{}
	if len(names) == 0 {
		return out, nil
	}
	var lacks string
	if has, err := hasFQ(); err != nil {
		return nil, err
	} else if !has {
		lacks = "this kernel has no fq (module sch_fq, CONFIG_NET_SCH_FQ)"
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		link, err := netlink.LinkByName(name)
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up interface %s: %w", name, err)
		}
		list, err := qdiscsOf(link.Attrs().Index)
		if err != nil {
			return nil, err
		}
		q := Queue{NoFQ: lacks}
		if what := list.foreign(); lacks == "" && what != "" && !list.departs("fq") {
			q.NoFQ = fmt.Sprintf("its queueing discipline %s was put there by somebody, and Sluice could not give it back", what)
		}
		out[name] = q
	}
	return out, nil
}

// hasFQ asks for one that the kernel refuses for an option, having found it: BUCKETS_LOG is 1 to 18, and RATE_ENABLE 0 or 1. (A
// quantum out of bounds is refused by some kernels, and by others brought into bounds.) Without the right to ask, the state of the
// module has to do.
func hasFQ() (bool, error) {
	state, stateErr := moduleState("sch_fq", "CONFIG_NET_SCH_FQ")
	if stateErr == nil && state == moduleAbsent {
		return false, nil
	}
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_FQ_BUCKETS_LOG, nl.Uint32Attr(0))
	options.AddRtAttr(nl.TCA_FQ_RATE_ENABLE, nl.Uint32Attr(2))
	const loopback = 1
	err := putQdisc(loopback, qdisc{ourQdisc, netlink.HANDLE_ROOT, "fq", options.Serialize()[unix.SizeofRtAttr:]})
	switch {
	case errors.Is(err, unix.EPERM):
		return stateErr == nil, stateErr
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.EINVAL):
		return true, nil
	case err == nil: // a kernel that takes anything
		return true, deleteQdisc(loopback)
	}
	return false, err
}
