package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// CheckPlace is ErrExposed for a key whose directory, or whose link's, gives others the right to put another file in its place, be it
// by its mode or because it is theirs. The sticky bit helps nothing where the file is not there yet. Others may look at the
// names in it, as in /etc: the files keep their secrets by their own modes. Directories that this package makes are 0700.
// It is asked of the files that a new configuration names; Load does not ask it, so that what runs goes on.
func CheckPlace(path string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("key file %s: %w", path, err)
	}
	dirs := []string{filepath.Dir(path)}
	if dir := filepath.Dir(target); dir != dirs[0] {
		dirs = append(dirs, dir)
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("directory of key file %s: %w", path, err)
		}
		if mode := info.Mode().Perm(); mode&0o022 != 0 {
			return fmt.Errorf("%w: its directory %s has mode %04o, so that others may replace %s; run: chmod 700 %s", ErrExposed, dir, mode, path, dir)
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
			return fmt.Errorf("%w: its directory %s belongs to user %d, who may replace %s; run: chown root %s", ErrExposed, dir, s.Uid, path, dir)
		}
	}
	return nil
}

// OwnDir is where a node keeps keys unless it is told another place.
func OwnDir(stateDir string) string { return filepath.Join(stateDir, "keys") }

// Tighten takes a directory of Sluice's own from who may only look into it: mode 0700. It returns the mode that was changed, and 0
// where nothing was: the directory is not there, is behind a link and so of somebody's choosing, or others may write to it. Then
// they may have put files there, and CheckPlace refuses those until somebody has looked.
func Tighten(dir string) (was fs.FileMode, err error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("directory of keys: %w", err)
	}
	mode := info.Mode().Perm()
	if !info.IsDir() || mode&0o077 == 0 || mode&0o022 != 0 {
		return 0, nil
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return 0, fmt.Errorf("directory of keys: %w", err)
	}
	return mode, nil
}
