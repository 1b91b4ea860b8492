package arch

import (
	"strings"
	"testing"
)

// root is the module's root, seen from this package's folder, where go test runs it.
const root = "../.."

func TestImportsRunDownhill(t *testing.T) {
	pkgs, err := List(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 8 {
		t.Fatalf("go list found %d packages: the house has more rooms, so this test looks at the wrong tree", len(pkgs))
	}
	for _, fault := range Violations(Rooms, Impure, pkgs) {
		t.Error(fault)
	}
}

// Each of these breaks a sentence of DESIGN.md section 1. They are judged by the real tables, so that neither a slip in
// the checker nor a careless line in the table can let one in.
func TestForbiddenImportsAreCaught(t *testing.T) {
	for _, edge := range [][2]string{
		{"xdp", "control/config"}, {"xdp", "tc"}, {"xdp", "bgp"}, {"xdp/classify", "xdp"},
		{"tc", "xdp"}, {"tc", "xdp/xsk"}, {"tc", "control/host"}, {"tc", "bgp"},
		{"bgp", "control/engine"}, {"bgp", "xdp/abi"}, {"bgp", "crypto/wireguard"},
		{"crypto/wireguard", "bgp"}, {"crypto/wireguard", "crypto/ipsec"}, {"crypto/ipsec", "control/probe"},
		{"control/host", "control/config"}, {"control/host", "xdp"}, {"control/host", "tc"},
		{"control/config", "xdp/classify"}, {"control/config", "control/host"}, {"control/config", "crypto/keys"},
		{"control/compile", "control/engine"}, {"control/compile", "control/daemon"},
		{"control/engine", "xdp"}, {"control/engine", "control/host"}, {"control/engine", "control/daemon"},
		{"control/engine", "control/api"}, {"control/probe", "control/engine"}, {"control/api", "control/daemon"},
		{"control/daemon", "cmd/sluice"}, {"control/daemon", "cmd/lab"},
		{"cmd/lab", "control/engine"}, {"cmd/lab", "control/daemon"}, {"cmd/lab", "control/config"}, {"cmd/lab", "xdp"},
		{"cmd/sluice", "control/engine"}, {"cmd/sluice", "xdp"}, {"cmd/sluice", "tests/netns"}, {"bgp", "tests/netns"},
		{"control/compile", "os"}, {"control/compile", "os/exec"}, {"control/compile", "net"}, {"control/compile", "time"},
		{"control/compile", "syscall"}, {"control/compile", "github.com/vishvananda/netlink"},
		{"control/compile", "github.com/cilium/ebpf"}, {"control/compile", "golang.org/x/sys/unix"},
	} {
		from, to := edge[0], edge[1]
		fake := []Package{{ImportPath: Module + "/" + from, Imports: []string{"fmt", "net/netip", fullPath(to)}}}
		faults := Violations(Rooms, Impure, fake)
		if len(faults) != 1 || !strings.HasPrefix(faults[0], from+" imports "+to+":") {
			t.Errorf("%s -> %s: want one fault that names it, got %q", from, to, faults)
		}
	}
}

func TestAllowedImportsPass(t *testing.T) {
	for _, p := range []Package{
		{ImportPath: "sluice/cmd/sluice", Imports: []string{"sluice/control/daemon", "sluice/control/api", "os"}},
		{ImportPath: "sluice/control/daemon", Imports: []string{"sluice/xdp", "sluice/crypto/wireguard", "sluice/bgp/fib"}},
		{ImportPath: "sluice/tc", Imports: []string{"sluice/xdp/classify", "github.com/cilium/ebpf"}},
		{ImportPath: "sluice/control/compile", Imports: []string{"net/netip"}, TestImports: []string{"os", "sluice/tests/packet"}},
		{ImportPath: "sluice/bgp", XTestImports: []string{"sluice/bgp"}},
		{ImportPath: "sluice/tests/vm/init", Imports: []string{"sluice/xdp"}},
	} {
		if faults := Violations(Rooms, Impure, []Package{p}); len(faults) != 0 {
			t.Errorf("%s: %q", p.ImportPath, faults)
		}
	}
}

func TestTestFilesFollowTheArrowsToo(t *testing.T) {
	for _, p := range []Package{
		{ImportPath: "sluice/xdp", TestImports: []string{"sluice/control/config"}},
		{ImportPath: "sluice/xdp", XTestImports: []string{"sluice/control/config"}},
	} {
		faults := Violations(Rooms, Impure, []Package{p})
		if len(faults) != 1 || !strings.HasPrefix(faults[0], "a test of xdp imports control/config") {
			t.Errorf("want one fault, got %q", faults)
		}
	}
}

func TestAnUnknownPackageFailsUntilItIsInTheTable(t *testing.T) {
	for _, path := range []string{"sluice/xdp/newroom", "sluice/attic", "sluice/control/configs"} {
		faults := Violations(Rooms, Impure, []Package{{ImportPath: path}})
		if len(faults) != 1 || !strings.Contains(faults[0], "not in the table") {
			t.Errorf("%s: want one fault, got %q", path, faults)
		}
	}
}

// The table itself must not point uphill, whoever edits it.
func TestTheTableRunsDownhill(t *testing.T) {
	height := map[string]int{"tests": 4, "cmd": 3, "control": 2, "tc": 1, "xdp": 0, "bgp": 0, "crypto": 0, "configs": 0, "images": 0, "netdump": -1, "process": -1, "netprobe": -1, "plural": -1}
	for from, allowed := range Rooms {
		folder, _, _ := strings.Cut(from, "/")
		up, known := height[folder]
		if !known {
			t.Errorf("%s: no folder of the house", from)
		}
		for _, to := range allowed {
			if to == "..." {
				if folder != "tests" {
					t.Errorf("%s: only tests may import everything", from)
				}
				continue
			}
			below, _, _ := strings.Cut(to, "/")
			down, known := height[below]
			if !known || below != folder && down >= up {
				t.Errorf("%s -> %s does not run downhill", from, to)
			}
		}
	}
}

// fullPath gives a package of the table its module, and leaves one from outside alone.
func fullPath(path string) string {
	if _, ours := lookup(Rooms, path); ours {
		return Module + "/" + path
	}
	return path
}
