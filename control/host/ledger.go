package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	Devices   []*deviceClaim `json:"devices,omitempty"`
	Links     []linkClaim    `json:"links,omitempty"`
	Addresses []addressClaim `json:"addresses,omitempty"`
	Routes    []routeClaim   `json:"routes,omitempty"`
	Sysctls   []sysctlClaim  `json:"sysctls,omitempty"` // in the order of claiming
	Inner     []innerClaim   `json:"inner_sysctls,omitempty"`
	Tags      []tagClaim     `json:"vlan_offloads,omitempty"`
	Qdiscs    []qdiscClaim   `json:"qdiscs,omitempty"`
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
	return len(l.Devices)+len(l.Links)+len(l.Addresses)+len(l.Routes)+len(l.Sysctls)+len(l.Inner)+len(l.Tags)+len(l.Qdiscs) == 0
}

// loadLedger reads the file; a missing file and one of another boot or namespace are an empty ledger.
func loadLedger(path, namespace string) (*ledger, error) {
	fresh := &ledger{Namespace: namespace}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host ledger: %w", err)
	}
	var l ledger
	if err := json.Unmarshal(data, &l); err != nil {
		if unwritten(data, namespace) {
			return fresh, nil
		}
		return nil, fmt.Errorf("%w: %s: %w; move the file away to go on (what is on the links now will count as found there)",
			ErrLedger, path, err)
	}
	if l.Namespace != namespace {
		return fresh, nil
	}
	return &l, nil
}

// save replaces the file as one step; an empty ledger has no file.
func (l *ledger) save(path string) error {
	if l.empty() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove host ledger: %w", err)
		}
		return nil
	}
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode host ledger: %w", err)
	}
	if err := replaceFile(path, append(data, '\n')); err != nil {
		return fmt.Errorf("write host ledger: %w", err)
	}
	return nil
}

// unwritten says that a power cut was before the disk had all of the file, which is of another boot then: it has no contents, or
// zeros, or the beginning of what that boot wrote.
func unwritten(data []byte, namespace string) bool {
	zeros := len(bytes.Trim(data, "\x00")) == 0
	id, whole := bytes.CutPrefix(data, []byte(`{"namespace":"`))
	return zeros || whole && bytes.ContainsRune(id, '"') && !bytes.HasPrefix(id, []byte(namespace+`"`))
}

// claim has a list of the ledger changed, and saves it. undo, and an error, bring the list back.
func claim[T any](h *Host, list *[]T, change func()) (undo func() error, err error) {
	before := slices.Clone(*list)
	undo = func() error {
		*list = before
		return h.ledger.save(h.path)
	}
	change()
	if err := h.ledger.save(h.path); err != nil {
		*list = before
		return nil, err
	}
	return undo, nil
}

// claimed is the undo of a claim that stood already.
func claimed() error { return nil }

// replaceFile writes by O_EXCL and rename. It does not wait for the disk: a killed process loses nothing by that, and after a
// power cut the ledger is of another boot and void. A workload takes five steps, each with its claim, of 5 to 10 ms of fsync;
// and of 3 ms where ext4 writes out a file that takes another's name (auto_da_alloc), so the two exchange names.
func replaceFile(path string, data []byte) error {
	temp := path + ".tmp"
	// A leftover of a crash: the daemon's lock makes us the only writer.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE) == nil {
		return os.Remove(temp)
	}
	return os.Rename(temp, path) // there is none to exchange with, or the file system does not know how
}

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
