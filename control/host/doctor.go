package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// FindingStatus is how bad a Finding is.
type FindingStatus string

// Missing stops Sluice or the feature that the finding names; Warn makes it slower, or wants a look.
const (
	StatusOK      FindingStatus = "ok"
	StatusWarn    FindingStatus = "warn"
	StatusMissing FindingStatus = "missing"
)

// Finding is one line of `sluice doctor`. Its JSON names are stable. Cost and Fix are empty where Status is ok.
type Finding struct {
	Name   string        `json:"name"`
	Status FindingStatus `json:"status"`
	Detail string        `json:"detail"`         // what is so
	Cost   string        `json:"cost,omitempty"` // what does not work, or not well
	Fix    string        `json:"fix,omitempty"`  // what to do
}

// DoctorOptions say what to look at beside the machine.
type DoctorOptions struct {
	BPFDir string          // node.bpf_dir, such as /sys/fs/bpf/sluice; it need not exist
	Ours   map[uint32]bool // programs that are attached from there, by their ids
	// RootLink returns the link of a program that is Sluice's own, wherever its pins are; 0: it is not. nil: nobody knows.
	RootLink func(program uint32) (link uint32)
	// Tunnels are what the file's need; nil: it has none, and nothing is said of what only they use.
	Tunnels *TunnelNeeds
	// Forwarders are the links behind which are workloads or networks, of a configuration that is applied.
	Forwarders []Forwarder
	// PlacesIRQs says that the file has irq_affinity.
	PlacesIRQs bool
}

// Doctor says what this machine and its NICs can do for Sluice, in a fixed order. It changes nothing: programs are loaded
// to see whether the kernel takes them, and none is attached; no module is loaded; what cannot be told without doing
// either is told as such. What tunnels need is tried in network namespaces that nobody else sees. It ends early, with what it has, when ctx ends.
func Doctor(ctx context.Context, o DoctorOptions) []Finding {
	checks := []func() []Finding{
		checkPrivileges, checkKernel, checkJIT, checkBTF,
		func() []Finding { return checkBPFFS(o.BPFDir) },
		checkMemlock, checkXDP, checkTC, checkTCX, checkMaps, checkIterators,
		checkModules, func() []Finding { return checkForwarding(o.Forwarders) }, func() []Finding { return checkInterfaces(o) },
		func() []Finding { return checkProcessors(machineFiles{"/"}, o.PlacesIRQs) }, checkNetfilter,
	}
	if o.Tunnels != nil {
		n := *o.Tunnels
		n.Uplinks = uplinksTowards(ctx, n)
		checks = append(checks, func() []Finding { return checkTunnels(ctx, n) })
	}
	var out []Finding
	for _, check := range checks {
		if ctx.Err() != nil {
			break
		}
		out = append(out, check()...)
	}
	return out
}

func ok(name, detail string) Finding { return Finding{Name: name, Status: StatusOK, Detail: detail} }

func one(f Finding) []Finding { return []Finding{f} }

// The capabilities in use (linux/capability.h).
var needed = []struct {
	bit  int
	name string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}, {unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
	{unix.CAP_PERFMON, "CAP_PERFMON"}, {unix.CAP_BPF, "CAP_BPF"},
}

func lackingCapabilities(effective uint64) []string {
	var out []string
	for _, c := range needed {
		if effective&(1<<c.bit) == 0 {
			out = append(out, c.name)
		}
	}
	return out
}

func checkPrivileges() []Finding {
	f := ok("privileges", "all capabilities that Sluice uses")
	// Version 3 of the call: two sets of 32 bits each.
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return one(Finding{f.Name, StatusWarn, "cannot read capabilities: " + err.Error(), "unknown", "run as root"})
	}
	lack := lackingCapabilities(uint64(data[1].Effective)<<32 | uint64(data[0].Effective))
	if len(lack) > 0 {
		f = Finding{f.Name, StatusMissing, "lacks " + strings.Join(lack, ", "),
			"sluice run cannot start, and the findings below may say less than there is", "run as root"}
	}
	return one(f)
}

// kernelAtLeast compares the first two numbers of a release such as 6.12.9-amd64.
func kernelAtLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

func checkKernel() []Finding {
	release, err := kernelRelease()
	switch {
	case err != nil:
		return one(Finding{"kernel", StatusWarn, err.Error(), "unknown", "look at uname -r: 6.6 is the floor"})
	case !kernelAtLeast(release, 6, 6):
		return one(Finding{"kernel", StatusMissing, release + ", below the floor of 6.6",
			"no tcx: no workloads and no egress policy; sluice run refuses to start", "install a kernel of 6.6 or later (6.12 is the reference)"})
	}
	return one(ok("kernel", release))
}

func checkBTF() []Finding {
	const path = "/sys/kernel/btf/vmlinux"
	if _, err := os.Stat(path); err != nil {
		return one(Finding{"btf", StatusMissing, "no " + path, "programs with kernel functions do not load",
			"use a kernel with CONFIG_DEBUG_INFO_BTF, and see that /sys is mounted"})
	}
	return one(ok("btf", path))
}

// checkBPFFS looks at the directory or, before it exists, at the nearest parent that does.
func checkBPFFS(dir string) []Finding {
	if dir == "" {
		dir = "/sys/fs/bpf"
	}
	at := filepath.Clean(dir)
	var fs unix.Statfs_t
	err := unix.Statfs(at, &fs)
	for errors.Is(err, unix.ENOENT) && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		err = unix.Statfs(at, &fs)
	}
	f := Finding{"bpffs", StatusMissing, "", "nothing can be pinned: filtering would end with the daemon, so it does not start",
		"mount -t bpf bpf /sys/fs/bpf, or set node.bpf_dir to where it is mounted"}
	switch {
	case err != nil:
		f.Detail = fmt.Sprintf("cannot look at %s: %v", at, err)
	case fs.Type != unix.BPF_FS_MAGIC && strings.HasPrefix(filepath.Clean(dir)+"/", "/sys/fs/bpf/"):
		f.Status, f.Detail = StatusWarn, "no bpf file system is mounted at /sys/fs/bpf"
		f.Cost = "sluice run mounts it; in a mount namespace of its own (ip netns exec makes one) the pins end with the daemon"
		f.Fix = "mount -t bpf bpf /sys/fs/bpf at boot; enter network namespaces by nsenter --net="
	case fs.Type != unix.BPF_FS_MAGIC:
		f.Detail = fmt.Sprintf("%s is not on a bpf file system", dir)
	default:
		f = ok(f.Name, dir)
	}
	return one(f)
}

// checkMemlock: since Linux 5.11 BPF memory is accounted to the memory cgroup and RLIMIT_MEMLOCK says nothing.
func checkMemlock() []Finding {
	release, err := kernelRelease()
	if err == nil && kernelAtLeast(release, 5, 11) {
		return one(ok("memlock", "BPF memory counts in the memory cgroup"))
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err == nil && limit.Cur == unix.RLIM_INFINITY {
		return one(ok("memlock", "unlimited"))
	}
	return one(Finding{"memlock", StatusWarn, "BPF memory is limited by RLIMIT_MEMLOCK", "large tables do not load",
		"ulimit -l unlimited, or a kernel of 5.11 or later"})
}
