package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLedger says that host.json cannot be read as what this package wrote.
var ErrLedger = errors.New("host ledger is damaged")

// ledger is what the kernel cannot tell about our changes: what was there before, and what was ours to begin with.
// A claim is written before the change that it speaks of and deleted after the change is undone, so at every instant
// the ledger knows at least what we changed. What it claims too much (a crash in between) Observe sorts out.
type ledger struct {
	// Namespace is boot id and network namespace cookie: claims of another boot or namespace are void, for the kernel
	// state that they speak of is gone.
	Namespace string         `json:"namespace"`
	Serial    uint64         `json:"serial,omitempty"` // grows with each save: of two files the later one is believed
	Devices   []*deviceClaim `json:"devices,omitempty"`
	Links     []linkClaim    `json:"links,omitempty"`
	Addresses []addressClaim `json:"addresses,omitempty"`
	Routes    []routeClaim   `json:"routes,omitempty"`
	Sysctls   []sysctlClaim  `json:"sysctls,omitempty"` // in the order of claiming
	Inner     []innerClaim   `json:"inner_sysctls,omitempty"`
	Tags      []tagClaim     `json:"vlan_offloads,omitempty"`
	Qdiscs    []qdiscClaim   `json:"qdiscs,omitempty"`
	Tunings   []tuningClaim  `json:"tunings,omitempty"`
}

// linkClaim holds by index: a link that was deleted and made again under its old name is not the one we changed.
type linkClaim struct {
	Name   string `json:"name"` // for readers only
	Index  int    `json:"index"`
	Up     bool   `json:"up,omitempty"`      // wanted up by us
	WasUp  bool   `json:"was_up,omitempty"`  // before
	MTU    int    `json:"mtu,omitempty"`     // wanted; 0: not ours
	WasMTU int    `json:"was_mtu,omitempty"` // before

	Group    int `json:"group,omitempty"` // wanted; 0: not ours
	WasGroup int `json:"was_group,omitempty"`
}

type addressClaim struct {
	Link    string       `json:"link"`
	Index   int          `json:"index"`
	Prefix  netip.Prefix `json:"prefix"`
	Keep    bool         `json:"keep,omitempty"`
	Adopted bool         `json:"adopted,omitempty"`
}

// routeClaim is needed for kept and adopted routes alone: the others are known by their protocol.
type routeClaim struct {
	Prefix   netip.Prefix `json:"prefix"`
	Table    int          `json:"table"`
	Metric   int          `json:"metric"`
	Keep     bool         `json:"keep,omitempty"`
	Adopted  bool         `json:"adopted,omitempty"`
	Protocol int          `json:"protocol"` // of the adopted route
}

type sysctlClaim struct {
	Key    string `json:"key"`  // as the file writes it
	Path   string `json:"path"` // below /proc/sys; the identity
	Index  int    `json:"index,omitempty"`
	Value  string `json:"value"`
	Before string `json:"before"`
	// Around holds, for a key whose write changes others, the values of those others before any of ours, by path.
	Around map[string]string `json:"around,omitempty"`
}

// innerClaim is on a setting of the namespace behind a veth.
type innerClaim struct {
	Link      string `json:"link"`
	Namespace string `json:"namespace"` // as ledger.Namespace
	Key       string `json:"key"`
	Path      string `json:"path"`
	Value     string `json:"value"`
	Before    string `json:"before"`
}

func (c innerClaim) id() innerID { return innerID{c.Link, c.Path} }

func (l *ledger) link(index int) *linkClaim {
	i := slices.IndexFunc(l.Links, func(c linkClaim) bool { return c.Index == index })
	if i < 0 {
		return nil
	}
	return &l.Links[i]
}

func (l *ledger) address(index int, p netip.Prefix) *addressClaim {
	i := slices.IndexFunc(l.Addresses, func(c addressClaim) bool { return c.Index == index && c.Prefix == p })
	if i < 0 {
		return nil
	}
	return &l.Addresses[i]
}

func (l *ledger) route(k routeKey) *routeClaim {
	i := slices.IndexFunc(l.Routes, func(c routeClaim) bool { return c.key() == k })
	if i < 0 {
		return nil
	}
	return &l.Routes[i]
}

func (l *ledger) sysctl(path string) *sysctlClaim {
	i := slices.IndexFunc(l.Sysctls, func(c sysctlClaim) bool { return c.Path == path })
	if i < 0 {
		return nil
	}
	return &l.Sysctls[i]
}

func (c routeClaim) key() routeKey { return routeKey{c.Table, c.Prefix, c.Metric} }

func (l *ledger) empty() bool {
	return len(l.Devices)+len(l.Links)+len(l.Addresses)+len(l.Routes)+len(l.Sysctls)+len(l.Inner)+len(l.Tags)+len(l.Qdiscs)+len(l.Tunings) == 0
}

// claim has a list of the ledger changed, and saves it. undo, and an error, bring the list back.
func claim[T any](h *Host, list *[]T, change func()) (undo func() error, err error) {
	before := slices.Clone(*list)
	undo = func() error {
		*list = before
		return h.save()
	}
	change()
	if err := h.save(); err != nil {
		*list = before
		return nil, err
	}
	return undo, nil
}

// claimed is the undo of a claim that stood already.
func claimed() error { return nil }

// namespaceID names this boot and the calling thread's network namespace. SO_NETNS_COOKIE needs Linux 5.14.
func namespaceID() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return "", fmt.Errorf("read network namespace cookie: %w", err)
	}
	return fmt.Sprintf("%s/%d", strings.TrimSpace(string(boot)), cookie), nil
}
