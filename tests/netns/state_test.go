package netns

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sluice/xdp/pin"
)

// machine is the whole state of the gateway's namespace as text, so that to compare is to read: links, addresses, routes
// of every table, rules, sysctls, netfilter, and what is pinned.
func (s *site) machine() string {
	s.t.Helper()
	var b strings.Builder
	for _, words := range []string{
		"ip -d link show", "ip -d address show", "ip -4 route show table all", "ip -6 route show table all",
		"ip -4 rule show", "ip -6 rule show", "ip nexthop show", "ip tuntap show", "bpftool net show",
	} {
		fmt.Fprintf(&b, "# %s\n%s", words, steady(s.must(s.Gateway.Namespace, words)))
	}
	return b.String() + s.netfilter() + "# sysctls\n" + s.sysctls() + "# pins\n" + s.pins()
}

// volatile are words that change by themselves: duplicate address detection, countdowns, hash values of neighbors.
var volatile = regexp.MustCompile(` (tentative|dadfailed|optimistic|linkdown|expires \d+sec|error -?\d+)\b| (valid_lft|preferred_lft) \S+`)

func steady(text string) string { return volatile.ReplaceAllString(text, "") }

// counters of chains move with every packet; those of rules are only printed where a test asks.
var chainCounters = regexp.MustCompile(`\[\d+:\d+\]`)

// saved is the comment that has the time of day.
var saved = regexp.MustCompile(`(?m)^# (Generated|Completed).*\n`)

// netfilter is every rule of nftables and of both kinds of iptables.
func (s *site) netfilter() string {
	s.t.Helper()
	var b strings.Builder
	for _, words := range []string{"nft -s list ruleset", "iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		out := s.must(s.Gateway.Namespace, words)
		fmt.Fprintf(&b, "# %s\n%s", words, saved.ReplaceAllString(chainCounters.ReplaceAllString(out, "[]"), ""))
	}
	return b.String()
}

// measured are files below /proc/sys/net that count something, or need a key to be read.
var measured = regexp.MustCompile(`nf_conntrack_count$|stable_secret$|tcp_fastopen_key$|/flush$|cookie|gc_|fib_sync_mem|dirtytime`)

// sysctls are all of the namespace.
func (s *site) sysctls() string {
	s.t.Helper()
	var lines []string
	err := s.Gateway.Do(func() error {
		return filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || measured.MatchString(path) {
				return err
			}
			value, err := os.ReadFile(path)
			if err != nil {
				return nil // to be written only
			}
			lines = append(lines, path+" = "+string(value))
			return nil
		})
	})
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// pins are the tree below the node's directory on the bpffs, with the kernel's id of each object.
func (s *site) pins() string {
	s.t.Helper()
	idle := s.idle()
	var b strings.Builder
	err := filepath.WalkDir(s.Gateway.BPFDir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if idle[d.Name()] || strings.HasSuffix(d.Name(), "-staged") {
			return fs.SkipDir
		}
		id, err := objectID(path, d)
		fmt.Fprintf(&b, "%s %s\n", "."+strings.TrimPrefix(path, s.Gateway.BPFDir), id)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

// idle are the pins of generations that no slot holds: what the next change is written into, and made when there is time.
func (s *site) idle() map[string]bool {
	s.t.Helper()
	out, dir := map[string]bool{}, pin.At(s.Gateway.BPFDir)
	for owner, kinds := range map[string][]string{"xdp": {"xdp"}, "tc": {"tcx-ingress", "tcx-egress"}} {
		live, err := dir.LivePrograms(kinds...)
		if err != nil {
			s.t.Fatal(err)
		}
		digests, err := dir.Idle(owner, live)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, d := range digests {
			out[owner+"-"+d] = true
		}
	}
	return out
}

// objectID tells what is pinned. The pin's own place says which kind it is, see package pin.
func objectID(path string, d fs.DirEntry) (string, error) {
	if d.IsDir() {
		return "directory", nil
	}
	switch {
	case strings.Contains(path, "/links/"):
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return "", err
		}
		defer func() { _ = l.Close() }()
		info, err := l.Info()
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("link %d program %d", info.ID, info.Program), nil
	case strings.HasPrefix(d.Name(), "prog-"):
		p, err := ebpf.LoadPinnedProgram(path, nil)
		if err != nil {
			return "", err
		}
		defer func() { _ = p.Close() }()
		info, err := p.Info()
		if err != nil {
			return "", err
		}
		id, _ := info.ID()
		return fmt.Sprintf("program %d", id), nil
	default:
		m, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			return "", err
		}
		defer func() { _ = m.Close() }()
		info, err := m.Info()
		if err != nil {
			return "", err
		}
		id, _ := info.ID()
		return fmt.Sprintf("map %d", id), nil
	}
}

// slot opens the PROG_ARRAY of a hook.
func (s *site) slot(kind, name string) *ebpf.Map {
	s.t.Helper()
	slot, err := pin.At(s.Gateway.BPFDir).Slot(pin.Hook{Kind: kind, Interface: name})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = slot.Close() })
	return slot
}

// same fails with the lines that differ.
func (s *site) same(what, before, after string) {
	s.t.Helper()
	if before == after {
		return
	}
	had, has := map[string]int{}, map[string]int{}
	for line := range strings.Lines(before) {
		had[line]++
	}
	for line := range strings.Lines(after) {
		has[line]++
	}
	var b strings.Builder
	for line := range strings.Lines(before) {
		if has[line] < had[line] {
			b.WriteString("- " + line)
		}
	}
	for line := range strings.Lines(after) {
		if had[line] < has[line] {
			b.WriteString("+ " + line)
		}
	}
	s.t.Errorf("%s: the machine is not as it was (or its order is not):\n%s", what, b.String())
}
