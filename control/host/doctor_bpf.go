package host

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// probed turns the answers of several probes into one finding: conclusive refusals make it f with its status, answers
// that tell nothing make it a warning.
func probed(f Finding, has string, probes map[string]error) Finding {
	var lack, unsure []string
	for _, name := range sortedKeys(probes) {
		switch err := probes[name]; {
		case err == nil:
		case errors.Is(err, ebpf.ErrNotSupported):
			lack = append(lack, name)
		default:
			unsure = append(unsure, fmt.Sprintf("%s (%v)", name, err))
		}
	}
	switch {
	case len(lack) > 0:
		f.Detail = "the kernel lacks " + strings.Join(lack, ", ")
	case len(unsure) > 0:
		f.Status, f.Detail, f.Cost = StatusWarn, "cannot tell of "+strings.Join(unsure, ", "), "unknown; if it lacks: "+f.Cost
		f.Fix = "run as root"
	default:
		f = ok(f.Name, has)
	}
	return f
}

// passing is a program that passes every packet.
func passing() *ebpf.ProgramSpec {
	const xdpPass = 2
	return &ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Flags: unix.BPF_F_XDP_HAS_FRAGS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	}
}

// checkJIT looks at what became of a program: the sysctl is there in the initial network namespace alone.
func checkJIT() []Finding {
	f := Finding{Name: "bpf-jit", Status: StatusMissing, Cost: "programs are interpreted, several times slower",
		Fix: "sysctl -w net.core.bpf_jit_enable=1, or a kernel with CONFIG_BPF_JIT"}
	size, err := jitedSize()
	if err == nil && size == 0 {
		err = ebpf.ErrNotSupported
	}
	return one(probed(f, "programs are compiled", map[string]error{"the BPF JIT": err}))
}

func jitedSize() (uint32, error) {
	p, err := ebpf.NewProgram(passing())
	if err != nil {
		return 0, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return 0, err
	}
	return info.JitedSize()
}

func checkXDP() []Finding {
	frags, err := ebpf.NewProgram(passing())
	if err == nil {
		frags.Close()
	} else if errors.Is(err, unix.EINVAL) {
		err = ebpf.ErrNotSupported
	}
	f := Finding{Name: "xdp", Status: StatusMissing, Cost: "no ingress policy", Fix: "use a kernel of 6.6 or later with CONFIG_BPF_SYSCALL"}
	return one(probed(f, "programs with frags, tail calls, FIB lookup and redirect load", map[string]error{
		"XDP programs":        features.HaveProgramType(ebpf.XDP),
		"XDP frags (5.18)":    err,
		"bpf_tail_call":       features.HaveProgramHelper(ebpf.XDP, asm.FnTailCall),
		"bpf_fib_lookup":      features.HaveProgramHelper(ebpf.XDP, asm.FnFibLookup),
		"bpf_redirect_map":    features.HaveProgramHelper(ebpf.XDP, asm.FnRedirectMap),
		"bpf_xdp_adjust_meta": features.HaveProgramHelper(ebpf.XDP, asm.FnXdpAdjustMeta),
	}))
}

func checkTC() []Finding {
	helper := func(fn asm.BuiltinFunc) error { return features.HaveProgramHelper(ebpf.SchedCLS, fn) }
	f := Finding{Name: "tc", Status: StatusMissing, Cost: "no delivery to workloads and no egress policy",
		Fix: "use a kernel of 6.6 or later with CONFIG_NET_CLS_ACT and CONFIG_BPF_SYSCALL"}
	return one(probed(f, "bpf_redirect_peer, bpf_redirect_neigh and bpf_fib_lookup load", map[string]error{
		"tc programs":               features.HaveProgramType(ebpf.SchedCLS),
		"bpf_redirect_peer (5.10)":  helper(asm.FnRedirectPeer),
		"bpf_redirect_neigh (5.10)": helper(asm.FnRedirectNeigh),
		"bpf_fib_lookup":            helper(asm.FnFibLookup),
		"bpf_skb_set_tstamp (5.18)": helper(asm.FnSkbSetTstamp),
	}))
}

// loIndex is the index of lo in every network namespace (LOOPBACK_IFINDEX).
const loIndex = 1

// checkTCX asks what is attached to lo, which a kernel without tcx refuses to answer.
func checkTCX() []Finding {
	_, err := link.QueryPrograms(link.QueryOptions{Target: loIndex, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.EINVAL) {
		err = ebpf.ErrNotSupported
	}
	f := Finding{Name: "tcx", Status: StatusMissing, Cost: "no workloads and no egress policy; sluice run refuses to start",
		Fix: "use a kernel of 6.6 or later with CONFIG_NET_XGRESS"}
	return one(probed(f, "the kernel answers for tcx links", map[string]error{"tcx (6.6)": err}))
}

func checkMaps() []Finding {
	probes := make(map[string]error)
	for _, t := range []ebpf.MapType{
		ebpf.ProgramArray, ebpf.Hash, ebpf.Array, ebpf.PerCPUArray, ebpf.LRUHash, ebpf.LPMTrie, ebpf.ArrayOfMaps, ebpf.RingBuf,
		ebpf.XSKMap,
	} {
		probes[t.String()] = features.HaveMapType(t)
	}
	f := Finding{Name: "bpf-maps", Status: StatusMissing, Cost: "the data path does not load", Fix: "use a kernel of 6.6 or later"}
	return one(probed(f, "all map types in use", probes))
}

// checkIterators looks for the kernel functions of open-coded iterators in the kernel's BTF.
func checkIterators() []Finding {
	f := Finding{Name: "open-coded-iterators", Status: StatusMissing, Cost: "long loops of the classifier do not load",
		Fix: "use a kernel of 6.4 or later with CONFIG_DEBUG_INFO_BTF"}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return one(probed(f, "", map[string]error{"bpf_iter_num_new": fmt.Errorf("kernel BTF: %w", err)}))
	}
	var fn *btf.Func
	if err = spec.TypeByName("bpf_iter_num_new", &fn); errors.Is(err, btf.ErrNotFound) {
		err = ebpf.ErrNotSupported
	}
	return one(probed(f, "bpf_iter_num_new is there", map[string]error{"bpf_iter_num_new (6.4)": err}))
}
