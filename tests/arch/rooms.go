// Package arch keeps the house of DESIGN.md section 1: which package may import which, and the habits of the tree that
// a tool can see.
package arch

// Rooms is the one table of allowed imports, by package without the module's name. A package may import what its line
// names and itself (an external test does); "x/..." is x and all below it, "..." is everything. A package that no line
// names fails the test: put it in with the arrows it needs, and let them run downhill (cmd > control > tc > xdp; bgp and
// crypto stand on the ground beside xdp).
var Rooms = map[string][]string{
	// Key files and the doctor need no daemon, and so no way through it.
	"cmd/sluice": {"bgp/bfd", "cmd/lab", "control/daemon", "control/api", "control/host", "control/support", "control/node", "control/node/slots", "control/node/source", "control/node/console", "crypto/keys", "crypto/ipsec", "crypto/wireguard/child", "plural"},
	// The lab treats the daemon as a box of its own: a binary that it starts and an API that it calls.
	"cmd/lab": {"control/api", "bgp", "bgp/torsim", "crypto/keys", "configs", "netdump", "plural"},
	"configs": {}, // the files themselves, embedded

	"images/sbom": {}, // a tool of the image's build

	// The composition root, which alone knows every subsystem by name.
	"control/daemon": {
		"control/api", "control/engine", "control/compile", "control/config", "control/probe", "control/host", "control/ban", "control/feed", "control/workload", "control/tunnel", "control/support", "control/drain", "control/health", "control/disk", "control/node", "control/node/source",
		"xdp/...", "tc/...", "bgp/...", "crypto/...", "netdump", "plural",
	},
	// The status types of the subsystems are the API's own answers.
	"control/api": {"control/engine", "control/compile", "control/config", "control/tunnel", "control/node/source", "bgp"},
	// Subsystems are interfaces here, so none is imported.
	"control/engine": {"control/compile", "control/config", "plural"},
	"control/compile": {
		"control/config", "control/host", "control/node", "xdp", "xdp/abi", "xdp/classify", "xdp/xsk", "tc",
		"bgp", "bgp/bfd", "bgp/flowspec", "crypto/path", "crypto/wireguard", "crypto/ipsec", "netdump", "plural",
	},
	"control/config":  {"netdump"}, // what the kernel makes of a route
	"control/probe":   {},
	"control/disk":    {},
	"control/support": {"control/config"},                 // packs what others tell it; config knows what may be a key
	"control/ban":     {"control/disk"},                   // the kernel's table is an interface here
	"control/feed":    {"control/config", "control/disk"}, // watched set files; who compiles them is an interface here
	// Workloads that the API adds; the engine is called by a function, and its types are named.
	"control/workload": {"control/engine", "control/compile", "control/config", "control/disk"},
	"control/drain":    {"control/engine", "control/compile", "control/disk"},
	"control/health":   {"control/disk"}, // what announcements wait for; the probe and the engine are functions here
	// What changes by itself around tunnels; devices, key daemons and the engine are functions here.
	"control/tunnel":       {"control/compile", "control/config", "control/disk", "crypto/path", "netdump", "plural"},
	"control/node":         {"control/disk", "plural"},                  // a subsystem, as host is
	"control/node/console": {"control/api", "control/engine", "plural"}, // the screen, which knows the API alone
	// The image's places on the disk, and the health gate; the daemon is asked by its API.
	"control/node/slots": {"control/api", "control/engine", "control/disk"},
	// How a node image comes to its configuration, by the engine's own words; the daemon is an interface here.
	"control/node/source": {"control/engine", "control/config", "control/disk"},
	"control/host":        {"control/disk", "netdump", "netprobe", "plural"}, // a subsystem, though its folder is control's

	// What XDP and tc share stands in xdp/table (tables and programs into the kernel) and xdp/pin (their pins).
	"tc": {"xdp/abi", "xdp/classify", "xdp/pin", "xdp/table", "plural"},

	"xdp":                       {"xdp/abi", "xdp/classify", "xdp/pin", "xdp/table", "xdp/xsk", "plural"},
	"xdp/abi":                   {},
	"xdp/abi/gen":               {"xdp/abi"},
	"xdp/classify":              {"xdp/abi"},
	"xdp/classify/classifytest": {"xdp/classify"},
	"xdp/packet":                {"xdp/classify"},
	"xdp/pin":                   {"xdp/abi"},
	"xdp/table":                 {"xdp/abi", "xdp/classify", "xdp/pin"},
	"xdp/xsk":                   {"xdp/abi", "xdp/pin"},

	"bgp":          {"bgp/flowspec", "bgp/fib", "bgp/bfd", "bgp/shortlist", "plural"},
	"bgp/flowspec": {"plural"},
	"bgp/fib":      {"bgp/shortlist", "netdump"},
	"bgp/bfd":      {"process"},
	"bgp/torsim":   {"bgp", "bgp/fib"},

	"bgp/shortlist":             {},               // the first of many routes
	"bgp/flowspec/flowspectest": {"bgp/flowspec"}, // rules and packets for the tests of others

	"crypto/wireguard":       {"crypto/keys", "crypto/path", "crypto/wireguard/child", "netdump", "netprobe", "process"},
	"crypto/wireguard/child": {"netdump", "process"}, // the userspace device's process, and the daemon's hold on it
	"crypto/ipsec":           {"crypto/keys", "crypto/path", "crypto/ike", "netdump", "netprobe", "process"},
	"crypto/ike":             {"crypto/keys"}, // charon's client, which knows no kernel
	"crypto/path":            {"netdump"},     // what both types of tunnel need of the kernel's routing
	"crypto/keys":            {},

	"netdump":  {}, // how every room reads a table of the kernel that changes meanwhile
	"netprobe": {}, // how every room tries what a kernel can do
	"process":  {}, // how every room keeps a process that outlives the daemon
	"plural":   {}, // how every room counts things

	// Tests look at every room, and nothing but a test may look back.
	"tests/...": {"..."},
}

// TestRooms are the imports that the tests of a package have beyond those of Rooms: harnesses, and the plain State types
// that a made-up Desired is of.
var TestRooms = map[string][]string{
	"control/engine":       {"control/host"},
	"control/node/source":  {"control/compile"},
	"control/node/console": {"control/node/source"},
	"xdp/classify":         {"xdp/classify/classifytest"},
	"xdp/table":            {"xdp/classify/classifytest"},
	"bgp":                  {"bgp/flowspec/flowspectest"},
	"bgp/flowspec":         {"bgp/flowspec/flowspectest"},

	"control/compile": {"bgp/flowspec/flowspectest"},
}

// Impure are imports from outside the module that a package may not name, in its own files (its tests may): compile is a
// function of its arguments, with no kernel, network, clock or file. net/netip and the like are types only.
var Impure = map[string][]string{
	"control/compile": {
		"os", "os/...", "io/ioutil", "net", "net/http", "syscall", "time", "math/rand", "math/rand/v2", "crypto/rand",
		"github.com/cilium/ebpf/...", "github.com/vishvananda/...", "golang.org/x/sys/...",
	},
}
