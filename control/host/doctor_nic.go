package host

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"

	"sluice/netdump"
	"sluice/plural"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// nativeXDP are drivers of Linux 6.12 with ndo_bpf and an XDP receive path. What a NIC takes still depends on its MTU,
// queues and offloads, which only attaching would tell.
var nativeXDP = map[string]string{
	"veth": "", "tun": "", "bonding": "if every member has it",
	"virtio_net": "with guest offloads off and a spare queue per CPU",
	"mlx5_core":  "with LRO off; large MTU without striding RQ", "mlx4_en": "up to one page of MTU",
	"i40e": "", "ice": "with its DDP firmware", "ixgbe": "", "ixgbevf": "up to one buffer of MTU", "igb": "", "igc": "",
	"bnxt_en": "", "ena": "with half of the queues", "nfp": "", "qede": "", "sfc": "", "sfc_siena": "", "gve": "", "mana": "",
	"hv_netvsc": "", "nicvf": "", "fsl_dpaa2_eth": "", "fsl_dpa": "", "fsl_enetc": "", "mvneta": "", "mvpp2": "",
	"st_gmac": "", "netsec": "", "cpsw": "", "am65-cpsw-nuss": "", "lan966x-switch": "", "atlantic": "", "tsnep": "", "fec": "",
	"vif": "", "vmxnet3": "", "mtk_soc_eth": "", "octeontx2-nicpf": "", "rvu_nicpf": "", "rvu_nicvf": "",
}

// xdpModes are the values of IFLA_XDP_ATTACHED (linux/if_link.h).
var xdpModes = map[uint32]string{1: "native", 2: "generic", 3: "offloaded", 4: "several modes"}

// checkInterfaces judges every veth and every link with a driver of its own.
func checkInterfaces(o DoctorOptions) []Finding {
	links, err := netdump.List(netlink.LinkList)
	if err != nil {
		return one(Finding{"interfaces", StatusWarn, "cannot list interfaces: " + err.Error(), "unknown", "run as root"})
	}
	nics, err := openOffloads()
	if err != nil {
		return one(Finding{"interfaces", StatusWarn, err.Error(), "unknown", "run as root"})
	}
	defer nics.close()
	slices.SortFunc(links, func(a, b netlink.Link) int { return a.Attrs().Index - b.Attrs().Index })
	var out []Finding
	for _, l := range links {
		name := driver(l.Attrs().Name)
		if kind := kindOf(l); name == "" || kind != "" && kind != "veth" && kind != "bond" {
			continue
		}
		out = append(out, judgeDriver(l.Attrs().Name, name))
		if r, err := receiver(nics, l); err == nil && r.Kind != "bond" { // a bond's members are judged
			out = append(out, judgeTags(r))
		}
		if x, has := examine(nics, machineFiles{"/"}, l.Attrs()); has {
			out = append(out, judgeNIC(x)...)
		}
		out = append(out, attached(l.Attrs(), o)...)
	}
	return out
}

func judgeDriver(iface, driver string) Finding {
	condition, known := nativeXDP[driver]
	switch {
	case !known:
		return Finding{"xdp-native/" + iface, StatusWarn, fmt.Sprintf("driver %s is not known to have native XDP", driver),
			"XDP runs in generic mode, after the kernel has made an skb: a flood costs several times more per packet",
			"try xdp: {mode: native} (it fails cleanly), or use another NIC"}
	case condition != "":
		return ok("xdp-native/"+iface, fmt.Sprintf("driver %s has it, %s", driver, condition))
	}
	return ok("xdp-native/"+iface, fmt.Sprintf("driver %s has it", driver))
}

// judgeTags says whether rules with vlan can see tags on a link.
func judgeTags(r Receiver) Finding {
	name := "vlan-tags/" + r.Link
	switch {
	case r.HidesTags != "":
		return Finding{name, StatusWarn, r.HidesTags, "a file with rules that match vlan here is refused",
			"limit such rules by interfaces:, match at the switch, or use another NIC"}
	case r.Kind == "veth":
		return ok(name, "tags in the frame are seen; those that its other end hands over beside it (tx-vlan-offload there) are not")
	}
	return ok(name, "they can be seen: Sluice switches rx-vlan-offload off where a rule has vlan")
}

// checkModules tells of what Sluice uses and can do without. A module that is not loaded yet is as good as one that is.
func checkModules() []Finding {
	var out []Finding
	for _, m := range []struct{ finding, module, option, cost, fix string }{
		{"fq", "sch_fq", "CONFIG_NET_SCH_FQ", "bandwidth.egress is held by dropping what is faster, instead of letting it wait on the uplink",
			"install the kernel's sch_fq module"},
	} {
		switch state, err := moduleState(m.module, m.option); {
		case err != nil:
			out = append(out, Finding{m.finding, StatusWarn, "cannot tell: " + err.Error(), "unknown; if it lacks: " + m.cost, m.fix})
		case state == moduleAbsent:
			out = append(out, Finding{m.finding, StatusWarn, "this kernel has no " + m.module, m.cost, m.fix})
		default:
			out = append(out, ok(m.finding, string(state)))
		}
	}
	return out
}

// checkNetfilter says which of the host's rules redirected packets pass by: XDP and tcx come before prerouting, and what is
// redirected there leaves the machine, or enters the workload, without meeting another hook.
func checkNetfilter() []Finding {
	var out []Finding
	for _, c := range []struct {
		name string
		read func() (ruleset, error)
	}{{"nftables", readNFTables}, {"iptables-legacy", readIPTables}} {
		rules, err := c.read()
		missed := rules.missed()
		switch {
		case errors.Is(err, errNoNetfilter):
			out = append(out, ok(c.name, "not in use"))
		case err != nil:
			out = append(out, Finding{c.name, StatusWarn, "cannot tell: " + err.Error(), "unknown", "run as root"})
		case rules.total() == 0:
			out = append(out, ok(c.name, "no rules"))
		case len(missed) == 0:
			out = append(out, ok(c.name, fmt.Sprintf("%s, all about the box's own packets", plural.Of(rules.total(), "rule", "rules"))))
		default:
			out = append(out, Finding{c.name, StatusWarn, fmt.Sprintf("%s; redirected packets of workloads pass by %s", plural.Of(rules.total(), "rule", "rules"), plural.Of(len(missed), "chain", "chains")),
				"the rules of these chains do not act on what Sluice redirects to and from workloads; they are listed below",
				"nothing, where they are about other traffic; Sluice never touches them"})
		}
		for _, m := range missed {
			out = append(out, Finding{c.name + "/" + m.name, StatusWarn, m.detail(), m.cost(), m.fix()})
		}
	}
	return out
}
