package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/tests/bench/lane"
	"sluice/xdp/classify"
)

// Rival is one way to filter: what the report calls it, and how a box gets it. Colours are those of the other reports.
type Rival struct {
	Key, Label, Colour string

	load func(ctx context.Context, w *workshop, box *lane.Namespace, c *content) (holder, error)
	fits func(kind Kind, size int, o Options) bool
}

// Keys of rivals.
const (
	Sluice      = "sluice"
	IPSet       = "ipset"
	NFT         = "nft-set"
	IPTables    = "iptables"
	IPTablesNFT = "iptables-nft"
)

// banLabel is a way to add a prefix that is state beside the file.
const banLabel = "sluice ban"

// Rivals are all of them, in the order of tables.
var Rivals = []Rival{
	{Sluice, "Sluice", "#d1342f", loadSluice, func(Kind, int, Options) bool { return true }},
	{IPSet, "ipset", "#63b56b", loadIPSet, func(k Kind, _ int, _ Options) bool { return k == Prefixes }},
	{NFT, "nftables set", "#6fa3e0", loadNFT, func(k Kind, n int, o Options) bool { return k == Prefixes && n <= o.MaxNFT }},
	{IPTables, "iptables legacy", "#9b7fd1", loadIPTables("legacy"), func(k Kind, _ int, _ Options) bool { return k == Rules }},
	{IPTablesNFT, "iptables nft", "#c08ab8", loadIPTables("nft"), func(k Kind, _ int, _ Options) bool { return k == Rules }},
}

// rival finds one by its key.
func rival(key string) Rival {
	return Rivals[slices.IndexFunc(Rivals, func(r Rival) bool { return r.Key == key })]
}

// content is what every rival of a comparison is told to drop, in its own words.
type content struct {
	kind  Kind
	list  []netip.Prefix
	rules []classify.Rule
}

func newContent(kind Kind, n int) *content {
	if kind == Rules {
		return &content{kind: kind, rules: newRules(n)}
	}
	return &content{kind: kind, list: newList(Even, n)}
}

// holder is a rival that holds a list.
type holder interface {
	// own is the memory in bytes that its own tools tell of; 0 where they tell none.
	own(ctx context.Context) (int64, error)
	// changes are the ways that it has to exchange the list, or to add a prefix to it. Each writes what its command reads,
	// and returns the command, with the processors' time that it took.
	changes() []way
	Close() error
}

// way is a command that changes a list.
type way struct {
	What  What
	Label string // of the command
	// ready writes files and returns the command.
	ready func(list []netip.Prefix, extra netip.Prefix) (command, error)
	// undo takes an addition back; nil where the next exchange does.
	undo func(ctx context.Context, extra netip.Prefix) error
}

// What a command changes.
type What string

// Swap: all prefixes are others. Add: there is one more.
const (
	Swap What = "swap"
	Add  What = "add"
)

// command runs, and says how much of the processors it and what works for it took.
type command func(ctx context.Context) (time.Duration, error)

// files is a folder for what commands read.
type files string

func (f files) write(name, content string) (string, error) {
	path := filepath.Join(string(f), name)
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// tool is a command of a program in a box.
func tool(box *lane.Namespace, stdin, name string, args ...string) command {
	return func(ctx context.Context) (took time.Duration, err error) {
		cmd := exec.CommandContext(ctx, name, args...)
		if stdin != "" {
			in, err := os.Open(stdin)
			if err != nil {
				return 0, err
			}
			defer in.Close()
			cmd.Stdin = in
		}
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := box.Do(cmd.Run); err != nil {
			return 0, fmt.Errorf("%s: %w: %.400s", strings.Join(append([]string{name}, args...), " "), err, said.String())
		}
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
	}
}

// sluiceHolder is the daemon.
type sluiceHolder struct{ *daemon }

func loadSluice(ctx context.Context, w *workshop, box *lane.Namespace, c *content) (holder, error) {
	files := map[string][]byte{"sluice.yaml": sluiceRules(c.rules)}
	if c.kind == Prefixes {
		files = map[string][]byte{"sluice.yaml": sluiceList(), "listed.netset": netset(c.list)}
	}
	d, err := startDaemon(ctx, w.binary, box, files)
	if err != nil {
		return nil, err
	}
	return sluiceHolder{d}, nil
}

func (s sluiceHolder) own(context.Context) (int64, error) {
	m, err := mapsOf(s.PID, s.Pins())
	return m.Tables + m.State, err
}

// timed adds what the daemon did.
func (s sluiceHolder) timed(args ...string) command {
	return func(ctx context.Context) (time.Duration, error) {
		before, err := s.CPU()
		if err != nil {
			return 0, err
		}
		own, err := tool(s.Box, "", s.Binary, append(args, "--socket", s.Path("sock"))...)(ctx)
		if err != nil {
			return 0, err
		}
		after, err := s.CPU()
		return own + after - before, err
	}
}

func (s sluiceHolder) changes() []way {
	apply := func(list []netip.Prefix) (command, error) {
		return s.timed("apply", "-c", s.Path("sluice.yaml")), s.Write(map[string][]byte{"listed.netset": netset(list)})
	}
	return []way{
		{What: Swap, Label: "sluice apply", ready: func(list []netip.Prefix, _ netip.Prefix) (command, error) { return apply(list) }},
		{What: Add, Label: "sluice apply", ready: func(list []netip.Prefix, extra netip.Prefix) (command, error) {
			return apply(append(slices.Clip(list), extra))
		}},
		{What: Add, Label: banLabel, ready: func(_ []netip.Prefix, extra netip.Prefix) (command, error) {
			return s.timed("ban", extra.String(), "--for", "1h"), nil
		}, undo: func(ctx context.Context, extra netip.Prefix) error { return s.Command(ctx, "unban", extra.String()) }},
	}
}

// ipsetHolder is a set, and a rule that asks it.
type ipsetHolder struct {
	box *lane.Namespace
	dir files
}

func loadIPSet(ctx context.Context, w *workshop, box *lane.Namespace, c *content) (holder, error) {
	h := &ipsetHolder{box, w.files}
	if _, err := box.Run(ctx, ipsetAdds("listed", c.list), "ipset", "restore"); err != nil {
		return nil, err
	}
	_, err := box.Run(ctx, "", "iptables-legacy", "-w", "-A", "FORWARD", "-m", "set", "--match-set", "listed", "src", "-j", "DROP")
	return h, err
}

var ipsetSize = regexp.MustCompile(`Size in memory: (\d+)`)

func (h *ipsetHolder) own(ctx context.Context) (int64, error) {
	out, err := h.box.Run(ctx, "", "ipset", "list", "-t", "listed")
	if err != nil {
		return 0, err
	}
	m := ipsetSize.FindStringSubmatch(out)
	if m == nil {
		return 0, errors.New("ipset tells no size: " + out)
	}
	return strconv.ParseInt(m[1], 10, 64)
}

func (h *ipsetHolder) changes() []way {
	return []way{
		{What: Swap, Label: "ipset restore, with swap", ready: func(list []netip.Prefix, _ netip.Prefix) (command, error) {
			path, err := h.dir.write("ipset", ipsetAdds("next", list)+"swap listed next\ndestroy next\n")
			return tool(h.box, path, "ipset", "restore"), err
		}},
		{What: Add, Label: "ipset add", ready: func(_ []netip.Prefix, extra netip.Prefix) (command, error) {
			return tool(h.box, "", "ipset", "add", "listed", extra.String()), nil
		}},
	}
}

func (h *ipsetHolder) Close() error { return nil } // it goes with the namespace

// nftHolder is a set of intervals, and a chain that asks it.
type nftHolder struct {
	box *lane.Namespace
	dir files
}

func loadNFT(ctx context.Context, w *workshop, box *lane.Namespace, c *content) (holder, error) {
	h := &nftHolder{box, w.files}
	_, err := box.Run(ctx, "table inet bench {\nset listed { type ipv4_addr; flags interval; elements = "+nftElements(c.list)+
		"}\nchain judge { type filter hook forward priority 0; policy accept; ip saddr @listed drop; }\n}\n", "nft", "-f", "-")
	return h, err
}

func (h *nftHolder) own(context.Context) (int64, error) { return 0, nil }

func (h *nftHolder) changes() []way {
	return []way{
		{What: Swap, Label: "nft -f, flush and add", ready: func(list []netip.Prefix, _ netip.Prefix) (command, error) {
			path, err := h.dir.write("nft", "flush set inet bench listed\nadd element inet bench listed "+nftElements(list))
			return tool(h.box, "", "nft", "-f", path), err
		}},
		{What: Add, Label: "nft add element", ready: func(_ []netip.Prefix, extra netip.Prefix) (command, error) {
			return tool(h.box, "", "nft", "add", "element", "inet", "bench", "listed", "{ "+extra.String()+" }"), nil
		}},
	}
}

func (h *nftHolder) Close() error { return nil }

// rulesHolder is a chain of rules.
type rulesHolder struct{}

func loadIPTables(backend string) func(context.Context, *workshop, *lane.Namespace, *content) (holder, error) {
	return func(ctx context.Context, _ *workshop, box *lane.Namespace, c *content) (holder, error) {
		_, err := box.Run(ctx, iptablesRules(c.rules), "iptables-"+backend+"-restore")
		return rulesHolder{}, err
	}
}

func (rulesHolder) own(context.Context) (int64, error) { return 0, nil }
func (rulesHolder) changes() []way                     { return nil }
func (rulesHolder) Close() error                       { return nil }
