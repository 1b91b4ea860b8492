package slots

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options are where things are on the node image.
type Options struct {
	ESP       string   // where the EFI system partition is mounted
	EFIVars   string   // where efivarfs is
	OSRelease string   // of the system that runs
	Keys      []string // patterns of public keys' files
	Notes     string   // a directory on the data partition, beside what a configuration is made of
	Arch      string   // as in GOARCH
	MaxBytes  int64    // of an image
}

// Defaults are the node image's own.
func Defaults(stateDir string) Options {
	return Options{
		ESP: "/efi", EFIVars: "/sys/firmware/efi/efivars", OSRelease: "/usr/lib/os-release",
		Keys:  []string{"/usr/lib/sluice/image.pub", filepath.Join(stateDir, "keys", "image.d", "*.pub")},
		Notes: filepath.Join(stateDir, "image"), Arch: runtime.GOARCH, MaxBytes: maxImage,
	}
}

// ErrNoImage: this machine runs another system than the node image.
var ErrNoImage = errors.New("this machine does not run Sluice's node image: sluice is updated by its package here")

// Machine is a node and its two slots.
type Machine struct {
	opts    Options
	esp     volume
	efi     efivars
	version string // that runs
	notes   notes
}

// Open looks at what runs. ErrNoImage, or an error where the ESP is not mounted.
func Open(o Options) (*Machine, error) {
	version, err := Runs(o.OSRelease)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoImage, err)
	}
	if version == "" {
		return nil, fmt.Errorf("%w (%s has no IMAGE_ID=%s)", ErrNoImage, o.OSRelease, imageID)
	}
	esp, err := openESP(o.ESP)
	if err != nil {
		return nil, err
	}
	return &Machine{opts: o, esp: esp, efi: efivars(o.EFIVars), version: version, notes: notes(o.Notes)}, nil
}

// lock keeps two who change the slots apart, until unlock or the end of the process. It is the kernel's flock on the ESP's directory.
// how is unix.LOCK_NB for who had better say so than wait, else 0.
func (m *Machine) lock(how int) (unlock func(), err error) {
	f, err := os.Open(m.opts.ESP)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|how); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(errors.New("another sluice changes the slots now: wait until it has ended"), f.Close())
	} else if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", m.opts.ESP, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// slot is one UKI on the ESP.
type slot struct {
	Name
	size int64
	runs bool
}

// layout is what stands on the ESP now.
type layout struct {
	slots    []slot
	leftover []Name   // of an install that was cut off: their files have staged behind the name
	empty    []string // names that a power cut took the contents of, in a rename: the loader passes over what is no UKI
	selected string   // what the boot loader says it booted
	oneshot  string
	standing string
}

// look reads the ESP and the boot loader's variables anew.
func (m *Machine) look() (l layout, err error) {
	for _, v := range []struct {
		name string
		to   *string
	}{{varSelected, &l.selected}, {varOneshot, &l.oneshot}, {varDefault, &l.standing}} {
		if *v.to, err = m.efi.get(v.name); err != nil {
			return l, err
		}
	}
	entries, err := m.esp.list()
	if err != nil {
		return l, err
	}
	for _, e := range entries {
		if n, ok := ParseName(e.name); ok && e.size == 0 {
			l.empty = append(l.empty, e.name)
		} else if ok {
			l.slots = append(l.slots, slot{Name: n, size: e.size, runs: n.Version == m.version})
		} else if n, ok := ParseName(strings.TrimSuffix(e.name, staged)); ok {
			l.leftover = append(l.leftover, n)
		}
	}
	// A file under another name than its version: what the loader started runs, too, and is left alone.
	if n, ok := m.booted(l.selected); ok && n.Version != m.version {
		for i := range l.slots {
			l.slots[i].runs = l.slots[i].runs || strings.EqualFold(l.slots[i].Version, n.Version)
		}
	}
	slices.SortFunc(l.slots, func(a, b slot) int { return rank(a.Name, b.Name) })
	return l, nil
}

// booted is the entry that the loader names. It folds the case of its ids.
func (m *Machine) booted(selected string) (Name, bool) { return ParseName(strings.ToLower(selected)) }

func (l layout) names() (out []Name) {
	for _, s := range l.slots {
		out = append(out, s.Name)
	}
	return out
}

// next is what a reboot starts.
func (l layout) next() (Name, bool) { return Choose(l.names(), l.oneshot, l.standing) }

// running is the slot that runs; false on a node that was not started from this ESP.
func (l layout) running() (slot, bool) {
	i := slices.IndexFunc(l.slots, func(s slot) bool { return s.runs })
	if i < 0 {
		return slot{}, false
	}
	return l.slots[i], true
}

// kept are the files that an update must not touch: the running slot's, or where none runs, those of the newest that passed, or else of
// what a reboot starts.
func (l layout) kept(n Name) bool {
	if _, ok := l.running(); ok {
		return slices.ContainsFunc(l.slots, func(s slot) bool { return s.runs && s.Name == n })
	}
	for _, s := range l.slots { // in the loader's order
		if !s.Counted {
			return s.Version == n.Version
		}
	}
	next, ok := l.next()
	return ok && next.Version == n.Version
}

// removable are the files of cut-off installs that an update removes, and whether any two files that it removes are of one version. One
// of the version that is kept may share its clusters, and is not removed.
func (l layout) removable() (leftover []string, twins bool) {
	seen := map[string]bool{}
	once := func(version string) {
		twins = twins || seen[version]
		seen[version] = true
	}
	for _, s := range l.others() {
		once(s.Version)
	}
	for _, n := range l.leftover {
		if !slices.ContainsFunc(l.slots, func(s slot) bool { return s.Version == n.Version && l.kept(s.Name) }) {
			leftover = append(leftover, n.File()+staged)
			once(n.Version)
		}
	}
	return leftover, twins
}

// others are the slots that an update replaces.
func (l layout) others() (out []slot) {
	for _, s := range l.slots {
		if !l.kept(s.Name) {
			out = append(out, s)
		}
	}
	return out
}

// Counted says whether this boot is a try, which the health gate judges: the loader counted it, and nobody blessed it since.
func (m *Machine) Counted() (bool, error) {
	booted, err := m.efi.get(varCounted)
	if err != nil || booted == "" {
		return false, err
	}
	l, err := m.look()
	if err != nil {
		return false, err
	}
	r, ok := l.running()
	return ok && r.Counted, nil
}

// takesOneshot says whether the boot loader can be told to start something else once.
func (m *Machine) takesOneshot() error {
	if _, err := os.Stat(m.opts.EFIVars); err != nil {
		return fmt.Errorf("the firmware's variables cannot be reached (%w): a downgrade needs them", err)
	}
	return nil
}
