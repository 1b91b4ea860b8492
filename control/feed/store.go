package feed

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"sluice/control/config"
	"sluice/control/disk"
)

// kept is where the last good contents of a file lie: a set file itself, so that an operator can read it.
func (l *List) kept(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(l.opts.Dir, hex.EncodeToString(sum[:8])+".netset")
}

// called is its name in the state directory.
func (l *List) called(path string) string {
	return filepath.Join(filepath.Base(l.opts.Dir), filepath.Base(l.kept(path)))
}

func (l *List) restore(path string) ([]netip.Prefix, error) {
	return config.ReadSetFile(l.kept(path))
}

// save writes the contents of a file: they are good, so reading them back will be, too.
func (l *List) save(path string, contents []netip.Prefix) error {
	if err := os.MkdirAll(l.opts.Dir, 0o700); err != nil {
		return err
	}
	out := fmt.Appendf(make([]byte, 0, 100+20*len(contents)), "# What %q held when it was last good.\n", path)
	for _, p := range contents {
		if p.IsSingleIP() {
			out = p.Addr().AppendTo(out)
		} else {
			out = p.AppendTo(out)
		}
		out = append(out, '\n')
	}
	return disk.Replace(l.kept(path), out)
}

// sweep removes what no file that is known has left.
func (l *List) sweep(paths map[string]*file) error {
	entries, err := os.ReadDir(l.opts.Dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	mine := map[string]bool{}
	for path := range paths {
		mine[filepath.Base(l.kept(path))] = true
	}
	for _, e := range entries {
		if !mine[e.Name()] {
			if err := os.Remove(filepath.Join(l.opts.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
