// Package slots is about the two places for Sluice's image on the EFI system partition: unified kernel images (UKIs) in EFI/Linux,
// of which systemd-boot chooses one. A new one has a counter of tries in its name (the Boot Loader Specification's boot counting),
// which systemd-boot lowers before each try; who passes the health gate loses the counter, and who runs out of tries comes last.
// So the file names are the whole state, one rename changes it, and there is nothing else that could disagree with it.
package slots

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Name is a UKI's file name, taken apart.
type Name struct {
	Version string
	Counted bool // it has to prove itself, or failed to
	Left    int  // tries
	Done    int
}

var (
	// uki is a name as mkosi and systemd write it; boot counters stand behind the last plus.
	uki = regexp.MustCompile(`^sluice_([A-Za-z0-9][A-Za-z0-9.~^-]*)(?:\+([0-9]{1,9})(?:-([0-9]{1,9}))?)?\.efi$`)
	// versionText is what a version may be: UAPI's version format, which has no plus, and nothing of a path.
	versionText = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.~^-]*$`)
)

// ParseName is false for a file that is no image of Sluice.
func ParseName(file string) (Name, bool) {
	m := uki.FindStringSubmatch(file)
	if m == nil {
		return Name{}, false
	}
	n := Name{Version: m[1], Counted: m[2] != ""}
	n.Left, _ = strconv.Atoi(m[2])
	n.Done, _ = strconv.Atoi(m[3])
	return n, true
}

// File is the file's name.
func (n Name) File() string {
	switch {
	case !n.Counted:
		return fmt.Sprintf("sluice_%s.efi", n.Version)
	case n.Done == 0:
		return fmt.Sprintf("sluice_%s+%d.efi", n.Version, n.Left)
	}
	return fmt.Sprintf("sluice_%s+%d-%d.efi", n.Version, n.Left, n.Done)
}

// bad: no tries are left.
func (n Name) bad() bool { return n.Counted && n.Left == 0 }

// aside: somebody, and not a failed try, put it behind the other.
func (n Name) aside() bool { return n.bad() && n.Done == 0 }

// plain is n without a counter, which systemd calls good.
func (n Name) plain() Name { return Name{Version: n.Version} }

// setAside is n behind every other.
func (n Name) setAside() Name { return Name{Version: n.Version, Counted: true} }

// Choose is what systemd-boot 257 boots of these, false where there is nothing. oneshot and standing are the EFI variables
// LoaderEntryOneShot and LoaderEntryDefault, patterns of file names without counters, whose case is folded: they win, whatever the counters say.
func Choose(names []Name, oneshot, standing string) (Name, bool) {
	if len(names) == 0 {
		return Name{}, false
	}
	list := slices.SortedFunc(slices.Values(names), rank)
	for _, pattern := range []string{oneshot, standing} {
		for _, n := range list {
			if named(pattern, n) {
				return n, true
			}
		}
	}
	return list[0], true
}

// id is what the boot loader's variables call n.
func (n Name) id() string { return n.plain().File() }

// named says whether a pattern of the boot loader is about n.
func named(pattern string, n Name) bool {
	ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(n.id()))
	return ok && err == nil
}

// rank is the order of systemd-boot's list, whose first entry is the default. All images have one sort key (IMAGE_ID).
func rank(a, b Name) int {
	truth := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(truth(a.bad()), truth(b.bad())),
		-Compare(a.Version, b.Version),
		-Compare(strings.ToLower(a.File()), strings.ToLower(b.File())),
		-cmp.Compare(a.Left, b.Left),
		cmp.Compare(a.Done, b.Done),
	)
}
