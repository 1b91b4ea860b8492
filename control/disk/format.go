package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Format is the version of all that a version of Sluice keeps under state_dir to itself. It grows by one with any change that an older
// binary would misread or damage: a schema of a file that is raised, a file whose meaning changes. Format 1 lies in state_dir itself,
// format N in state_dir/format-N, and the file state_dir/format says which one was in use last.
//
// So an older binary that comes back never opens what a newer one wrote: it goes on from its own, as it was when it was updated. A
// newer one begins with a copy of what was in use last.
//
// Not of any format: keys, and what an earlier state of would harm (ipsec/, epochs that must not repeat) or that holds for one boot
// (host.json, run/, bfd/). These may grow, and never change.
const Format = 1

// formatFile says which format was in use last; without it that is 1.
const formatFile = "format"

// firstFormat are the names of format 1, which has its directory in common with other things.
var firstFormat = []string{
	"revisions", "pending.json", "rule-ids.json", "rule-ids.journal", "bans.json", "bans.journal", "bans.journal.old", "workloads.json",
	"drain.json", "tunnels.json", "health.json", "flowspec.json", "sets", "management.json",
}

// State is where this version's files lie.
func State(stateDir string) string { return formatDir(stateDir, Format) }

func formatDir(stateDir string, format int) string {
	if format == 1 {
		return stateDir
	}
	return filepath.Join(stateDir, fmt.Sprintf("%s-%d", formatFile, format))
}

// Adopt makes State of this version be that of the machine, ahead of the first look into it, under the lock of state_dir. newer is the
// highest format beside it that a newer version left, 0 without one.
func Adopt(stateDir string) (newer int, err error) { return adopt(stateDir, Format) }

func adopt(stateDir string, own int) (newer int, err error) {
	last, err := lastFormat(stateDir)
	if err != nil {
		return 0, fmt.Errorf("state_dir %s: %w", stateDir, err)
	}
	if last < own {
		err = takeOver(formatDir(stateDir, last), last, formatDir(stateDir, own))
	} else if last > own {
		err = os.MkdirAll(formatDir(stateDir, own), 0o700)
	}
	if err == nil && last != own {
		err = Replace(filepath.Join(stateDir, formatFile), fmt.Appendf(nil, "%d\n", own))
	}
	if err != nil {
		return 0, fmt.Errorf("state_dir %s: from format %d to %d: %w", stateDir, last, own, err)
	}
	entries, err := os.ReadDir(stateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, e := range entries {
		if n, ok := formatOf(e.Name()); ok && n > own {
			newer = max(newer, n)
		}
	}
	return newer, nil
}

func formatOf(name string) (int, bool) {
	number, ok := strings.CutPrefix(name, formatFile+"-")
	n, err := strconv.Atoi(number)
	return n, ok && err == nil && n > 1
}

func lastFormat(stateDir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(stateDir, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s holds %q, and is to hold the number of the format that was in use last: write it there", formatFile, text)
	}
	return n, nil
}

// takeOver makes to a copy of from, which is of an older format. What was in to, from before an older version came back, is kept aside
// until the next time. A crash in between is begun again: the file that says which format is in use comes last.
func takeOver(from string, format int, to string) error {
	fresh, aside := to+".new", to+".before"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if format > 1 || slices.Contains(firstFormat, e.Name()) {
			if err := copyTree(filepath.Join(from, e.Name()), filepath.Join(fresh, e.Name()), e.Name() == "revisions"); err != nil {
				return err
			}
		}
	}
	if err := SyncDir(fresh); err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		if err := os.RemoveAll(aside); err != nil {
			return err
		}
		if err := os.Rename(to, aside); err != nil {
			return err
		}
	}
	if err := os.Rename(fresh, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// copyTree copies what is no directory for itself. Files of revisions are replaced and never written into, so a second name will do
// for them, where the file system has such.
func copyTree(from, to string, link bool) error {
	info, err := os.Lstat(from)
	switch {
	case err != nil:
		return err
	case info.Mode().IsRegular():
		if link && os.Link(from, to) == nil {
			return nil
		}
		return copyFile(from, to)
	case !info.IsDir():
		return nil
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyTree(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), link); err != nil {
			return err
		}
	}
	return SyncDir(to)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
