package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"sluice/plural"
)

// attached tells of programs that are there, whose they are, and what those of others may do.
func attached(a *netlink.LinkAttrs, o DoctorOptions) []Finding {
	var out []Finding
	if a.Xdp != nil && a.Xdp.Attached {
		name, mode := "xdp-attached/"+a.Name, xdpModes[a.Xdp.AttachMode]
		id := a.Xdp.ProgId
		links := o.rootLinks([]uint32{id})
		switch {
		case o.Ours[id]:
			out = append(out, ok(name, fmt.Sprintf("Sluice's own program %d (%s)", id, mode)))
		case links != nil:
			out = append(out, otherRun(name, fmt.Sprintf("XDP program %d (%s)", id, mode), "an interface takes one XDP program: attaching this one's fails as busy", links))
		default:
			out = append(out, Finding{name, StatusWarn, fmt.Sprintf("XDP program %d is attached (%s), and not from this bpf_dir", id, mode),
				"an interface takes one XDP program: attaching Sluice's fails as busy",
				fmt.Sprintf("bpftool prog show id %d says whose it is", id)})
		}
	}
	for _, at := range []struct {
		hook string
		kind ebpf.AttachType
	}{{"egress", ebpf.AttachTCXEgress}, {"ingress", ebpf.AttachTCXIngress}} {
		found, err := link.QueryPrograms(link.QueryOptions{Target: a.Index, Attach: at.kind})
		if err != nil || len(found.Programs) == 0 {
			continue
		}
		var foreign []uint32
		for _, p := range found.Programs {
			if !o.Ours[uint32(p.ID)] {
				foreign = append(foreign, uint32(p.ID))
			}
		}
		name, ids := "tcx-attached/"+a.Name+"/"+at.hook, listed(foreign)
		links := o.rootLinks(foreign)
		switch {
		case len(foreign) == 0:
			out = append(out, ok(name, "Sluice's own program alone"))
		case len(links) == len(foreign):
			out = append(out, otherRun(name, "tcx "+ids, "they decide on a packet by what that run was configured with, beside the programs of this one", links))
		default:
			out = append(out, Finding{name, StatusWarn, fmt.Sprintf("of %s here these are not from this bpf_dir, by id: %s", plural.Of(len(found.Programs), "tcx program", "tcx programs"), ids),
				"they decide on a packet before Sluice where they stand before it, and behind it on what it passes", "bpftool net show dev " + a.Name})
		}
	}
	return out
}

// rootLinks are those of the programs that are Sluice's own.
func (o DoctorOptions) rootLinks(programs []uint32) (links []uint32) {
	for _, id := range programs {
		if o.RootLink == nil {
			break
		}
		if l := o.RootLink(id); l != 0 {
			links = append(links, l)
		}
	}
	return links
}

// otherRun is about programs of ours whose pins are out of sight.
func otherRun(name, what, cost string, links []uint32) Finding {
	detail := what + " of Sluice's own, of another run: its pins are not in this bpf_dir"
	fix := "start the daemon as that one was (its --bpf-dir; by ip netns exec, which has a bpf file system of its own, or not), or take them off: "
	for i, l := range links {
		if i > 0 {
			fix += "; "
		}
		fix += fmt.Sprintf("bpftool link detach id %d", l)
	}
	if left := leftBehind(); left != "" {
		detail += "; of that run these processes are left, with another view of the file systems: " + left
		fix += "; or end these processes, and with them the tunnels that they carry"
	}
	return Finding{name, StatusWarn, detail, cost, fix}
}

// leftBehind lists the processes of Sluice's in this network namespace that live in another mount namespace than we do.
func leftBehind() string {
	view := func(pid, kind string) string {
		id, _ := os.Readlink(filepath.Join("/proc", pid, "ns", kind))
		return id
	}
	entries, _ := filepath.Glob("/proc/[0-9]*")
	var out []string
	for _, e := range entries {
		pid := filepath.Base(e)
		command, _ := os.ReadFile(filepath.Join(e, "cmdline"))
		program, _, _ := strings.Cut(string(command), "\x00")
		if filepath.Base(program) == "sluice" && view(pid, "net") == view("self", "net") && view(pid, "mnt") != view("self", "mnt") {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func listed(ids []uint32) string {
	text := make([]string, len(ids))
	for i, id := range ids {
		text[i] = fmt.Sprint(id)
	}
	return strings.Join(text, ", ")
}
