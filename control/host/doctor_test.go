package host

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// findings runs the doctor, checks what holds for every finding, and returns them by name.
func findings(t *testing.T, o DoctorOptions) map[string]Finding {
	t.Helper()
	out := make(map[string]Finding)
	for _, f := range Doctor(t.Context(), o) {
		if _, twice := out[f.Name]; twice {
			t.Errorf("two findings are called %s", f.Name)
		}
		if fine := f.Status == StatusOK; f.Detail == "" || (f.Cost == "") != fine || (f.Fix == "") != fine {
			t.Errorf("a finding says too little or too much: %+v", f)
		}
		out[f.Name] = f
	}
	return out
}

func is(t *testing.T, f Finding, status FindingStatus, detail string) {
	t.Helper()
	if f.Status != status || !strings.Contains(f.Detail, detail) {
		t.Errorf("got %+v, want %s with %q", f, status, detail)
	}
}

func TestDoctorOnThisMachineChangesNothing(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before, modules := machine(t), loadedModules(t)
	got := findings(t, DoctorOptions{BPFDir: "/sys/fs/bpf/not/yet/there"})
	same(t, "the machine", before, machine(t))
	same(t, "the modules", modules, loadedModules(t))

	for _, name := range []string{"privileges", "kernel", "bpf-jit", "btf", "bpffs", "memlock", "xdp", "tc", "tcx", "bpf-maps", "open-coded-iterators"} {
		if got[name].Status != StatusOK {
			t.Errorf("%s is not fine here: %+v", name, got[name])
		}
	}
	if s := got["fq"].Status; s != StatusOK && s != StatusWarn {
		t.Errorf("fq: %+v", got["fq"])
	}
	is(t, got["forwarding-ipv4"], StatusOK, "net/ipv4/ip_forward is 0; Sluice switches")
	is(t, got["forwarding-ipv6"], StatusOK, "net/ipv6/conf/all/forwarding is 0; Sluice switches")
	is(t, got["xdp-native/eth0"], StatusOK, "driver veth has it")
	is(t, got["vlan-tags/eth0"], StatusOK, "tags in the frame are seen")
	for name := range got {
		if strings.Contains(name, "attached/") || strings.HasSuffix(name, "/lo") {
			t.Errorf("nothing is attached and lo is no NIC, yet there is %+v", got[name])
		}
	}
}

// loadedModules is empty on a kernel that takes no modules.
func loadedModules(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/modules")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func TestDoctorSeesWhatOthersHaveInPlace(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	sysctl(t, "net/ipv4/ip_forward", "1")
	run(t, "nft", "add table inet theirs; add chain inet theirs in; add rule inet theirs in tcp dport 22 accept; add rule inet theirs in drop")
	run(t, "iptables-legacy", "-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "DROP")
	run(t, "iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
	run(t, "ip6tables-legacy", "-A", "FORWARD", "-j", "DROP")
	attach(t, "eth0")
	ours := attach(t, "eth1")
	got := findings(t, DoctorOptions{BPFDir: t.TempDir(), Ours: ours})
	is(t, got["forwarding-ipv4"], StatusOK, "is 1")
	is(t, got["nftables"], StatusOK, "2 rules, all about the box's own packets")
	is(t, got["iptables-legacy"], StatusWarn, "3 rules; redirected packets of workloads pass by 3 chains")
	is(t, got["xdp-attached/eth0"], StatusWarn, "is attached (native)")
	is(t, got["tcx-attached/eth0/ingress"], StatusWarn, "of 1 tcx program here these are not from this bpf_dir")
	is(t, got["bpffs"], StatusMissing, "is not on a bpf file system")
	is(t, got["xdp-attached/eth1"], StatusOK, "Sluice's own program")
	is(t, got["tcx-attached/eth1/ingress"], StatusOK, "Sluice's own program alone")

	// Those of another run are ours as well, and their pins out of sight.
	got = findings(t, DoctorOptions{BPFDir: t.TempDir(), RootLink: func(program uint32) uint32 {
		if ours[program] {
			return 4711
		}
		return 0
	}})
	for name, status := range map[string]string{"xdp-attached/eth1": "of Sluice's own, of another run", "tcx-attached/eth1/ingress": "of Sluice's own, of another run",
		"xdp-attached/eth0": "is attached (native), and not from this bpf_dir"} {
		if is(t, got[name], StatusWarn, status); strings.HasSuffix(name, "eth0") == strings.Contains(got[name].Fix, "bpftool link detach id 4711") {
			t.Errorf("%s: %+v", name, got[name])
		}
	}
}

func TestTheDoctorLooksAtForwardingWhereItMatters(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	both := DoctorOptions{BPFDir: t.TempDir(), Forwarders: []Forwarder{{"eth0", false}, {"eth1", true}, {"later", true}}}
	sysctl(t, "net/ipv4/ip_forward", "0") // of every interface
	sysctl(t, "net/ipv4/conf/eth1/forwarding", "1")
	is(t, findings(t, both)["forwarding-ipv4"], StatusWarn, "off for eth0")
	sysctl(t, "net/ipv4/conf/eth0/forwarding", "1")
	sysctl(t, "net/ipv6/conf/eth1/forwarding", "1")
	got := findings(t, both)
	is(t, got["forwarding-ipv4"], StatusOK, "on where workloads and networks need it")
	is(t, got["forwarding-ipv6"], StatusWarn, "off for eth1")
	sysctl(t, "net/ipv6/conf/all/forwarding", "1")
	is(t, findings(t, both)["forwarding-ipv6"], StatusOK, "on where")
}

// attach puts a passing program on the link's XDP and tcx ingress hooks for the time of the test, and returns their ids.
func attach(t *testing.T, name string) map[uint32]bool {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[uint32]bool{}
	load := func(typ ebpf.ProgramType, verdict int32) *ebpf.Program {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: typ, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		ids[uint32(id)] = true
		return p
	}
	x, err := link.AttachXDP(link.XDPOptions{Program: load(ebpf.XDP, 2), Interface: l.Attrs().Index, Flags: link.XDPDriverMode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	c, err := link.AttachTCX(link.TCXOptions{Program: load(ebpf.SchedCLS, -1), Interface: l.Attrs().Index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return ids
}

func TestFindingsInJSON(t *testing.T) {
	text, err := json.Marshal([]Finding{ok("kernel", "6.12"), {"fq", StatusWarn, "a", "b", "c"}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"name":"kernel","status":"ok","detail":"6.12"},{"name":"fq","status":"warn","detail":"a","cost":"b","fix":"c"}]`
	if string(text) != want {
		t.Errorf("got %s", text)
	}
}

func TestJudgements(t *testing.T) {
	for release, want := range map[string]bool{
		"6.6.0": true, "6.12.9-amd64": true, "7.0-rc1": true, "6.5.13": false, "5.15.0-91-generic": false, "next": false,
	} {
		if got := kernelAtLeast(release, 6, 6); got != want {
			t.Errorf("%s at least 6.6: %v", release, got)
		}
	}
	if got := lackingCapabilities(1<<12 | 1<<13 | 1<<21); !slices.Equal(got, []string{"CAP_PERFMON", "CAP_BPF"}) {
		t.Errorf("capabilities: %v", got)
	}
	is(t, judgeDriver("eth0", "r8169"), StatusWarn, "driver r8169 is not known to have native XDP")
	is(t, judgeDriver("eth0", "i40e"), StatusOK, "driver i40e has it")
	is(t, judgeDriver("eth0", "ice"), StatusOK, "with its DDP firmware")

	f := Finding{Name: "x", Status: StatusMissing, Cost: "nothing works", Fix: "a new kernel"}
	lack := map[string]error{"a": nil, "b": ebpf.ErrNotSupported, "c": errors.New("EPERM")}
	is(t, probed(f, "all", lack), StatusMissing, "the kernel lacks b")
	delete(lack, "b")
	is(t, probed(f, "all", lack), StatusWarn, "cannot tell of c (EPERM)")
	delete(lack, "c")
	is(t, probed(f, "all", lack), StatusOK, "all")
}

func TestModuleThatNoKernelHasIsAbsent(t *testing.T) {
	if state, err := moduleState("no_such_module", "CONFIG_NO_SUCH_MODULE"); err != nil || state != moduleAbsent {
		t.Errorf("got %q, %v", state, err)
	}
	if _, err := fileHas(filepath.Join(t.TempDir(), "none"), func(string) bool { return true }); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestDoctorEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := Doctor(ctx, DoctorOptions{}); len(got) > 0 {
		t.Errorf("got %v", got)
	}
}
