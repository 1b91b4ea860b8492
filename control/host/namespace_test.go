package host

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/tests/nstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
)

// inNamespace moves the test's goroutine into a new network namespace with lo up. Such a test must do its work in its own
// goroutine.
func inNamespace(t *testing.T) {
	t.Helper()
	nstest.Enter(t)
	// Detection of duplicate addresses would make states depend on time.
	sysctl(t, "net/ipv6/conf/default/accept_dad", "0")
	sysctl(t, "net/ipv6/conf/all/accept_dad", "0")
}

// ip runs ip(8). An IPv6 address that it adds is there when it returns: the kernel makes its local route later, by a
// worker of its own, also without duplicate address detection.
func ip(t *testing.T, args string) string {
	t.Helper()
	out := nstest.IP(t, args)
	if words := strings.Fields(args); len(words) > 2 && words[0] == "addr" && words[1] == "add" && strings.Contains(words[2], ":") {
		address, _, _ := strings.Cut(words[2], "/")
		until := time.Now().Add(10 * time.Second)
		for !strings.Contains(run(t, "ip", "-6", "route", "show", "table", "local"), "local "+address+" ") {
			if time.Now().After(until) {
				t.Fatalf("%s has no local route after 10 s", address)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return out
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func sysctl(t *testing.T, path, value string) {
	t.Helper()
	if err := writeSysctl(path, value); err != nil {
		t.Fatal(err)
	}
}

// machine prints the whole state of the namespace that somebody could miss: links, addresses, routes of all tables,
// rules, offloads, the sysctls of both families, nftables and iptables.
func machine(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, args := range []string{
		"-d link", "addr", "-4 route show table all", "-6 route show table all", "-4 rule", "-6 rule",
	} {
		fmt.Fprintf(&b, "# ip %s\n%s", args, ip(t, args))
	}
	nic, err := openOffloads()
	if err != nil {
		t.Fatal(err)
	}
	defer nic.close()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		features, err := nic.read(l.Attrs().Name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "# offloads of %s\n%v\n", l.Attrs().Name, features) // maps print sorted
	}
	// iproute2 knows 188 by the name of another owner.
	named := strings.ReplaceAll(b.String(), "proto ospf", "proto 188")
	named = strings.ReplaceAll(named, "tentative ", "") // duplicate address detection ends when it does
	b.Reset()
	b.WriteString(named + "# sysctls\n")
	for _, root := range []string{"net/ipv4", "net/ipv6"} {
		err := filepath.WalkDir(procSys+root, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			value, err := os.ReadFile(path)
			if err != nil {
				value = []byte("unreadable\n")
			}
			fmt.Fprintf(&b, "%s = %s", strings.TrimPrefix(path, procSys), value)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(&b, "# qdiscs\n%s", run(t, "tc", "qdisc"))
	fmt.Fprintf(&b, "# nft\n%s", run(t, "nft", "list", "ruleset"))
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		lines := strings.Split(run(t, save), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "#") }) // the time of day
		fmt.Fprintf(&b, "# %s\n%s", save, strings.Join(lines, "\n"))
	}
	return b.String()
}

func same(t *testing.T, what, before, after string) {
	t.Helper()
	if d := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); d != "" {
		t.Errorf("%s (- before, + after):\n%s", what, d)
	}
}

// open starts a Host on the directory, as a daemon that starts would.
func open(t *testing.T, dir string) *Host {
	t.Helper()
	h, err := New(slog.New(slog.NewTextHandler(io.Discard, nil)), Options{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func observe(t *testing.T, h *Host) State {
	t.Helper()
	s, err := h.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// apply brings the machine to want and checks that doing it again would do nothing.
func apply(t *testing.T, h *Host, want State) []string {
	t.Helper()
	var done []string
	for _, op := range Diff(observe(t, h), want) {
		if err := h.Apply(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		done = append(done, op.String())
	}
	if again := Diff(observe(t, h), want); len(again) > 0 {
		t.Fatalf("a second apply would do %v", again)
	}
	return done
}

func down(t *testing.T, h *Host) {
	t.Helper()
	if err := h.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := observe(t, h); !cmp.Equal(left, left.Kept(), cmpopts.EquateEmpty(), netipEqual) {
		t.Fatalf("after down there is still %+v", left)
	}
}

var netipEqual = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func has(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("want %q in:\n%s", part, text)
	}
}

func hasNot(t *testing.T, text, part string) {
	t.Helper()
	if strings.Contains(text, part) {
		t.Errorf("do not want %q in:\n%s", part, text)
	}
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func hops(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// twoVeths makes eth0 and eth1, up, with their peers tor0 and tor1 in the same namespace.
func twoVeths(t *testing.T) {
	t.Helper()
	for _, n := range []string{"0", "1"} {
		ip(t, "link add eth"+n+" type veth peer name tor"+n)
		ip(t, "link set eth"+n+" up")
		ip(t, "link set tor"+n+" up")
	}
	settled(t)
}

// settled waits until the kernel's link watch has told every peer that its other end is up, and until the worker that makes the
// local routes of link-local addresses has done so.
func settled(t *testing.T) {
	t.Helper()
	working := func() bool {
		return strings.Contains(ip(t, "link"), "LOWERLAYERDOWN") ||
			strings.Count(ip(t, "-6 addr show scope link"), "inet6 ") != strings.Count(ip(t, "-6 route show table local type local"), "local fe80:")
	}
	for deadline := time.Now().Add(10 * time.Second); working(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the links have not come to rest after 10 s")
		}
	}
}
