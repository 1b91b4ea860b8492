package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/xdp/pin"
)

const bpffs = "/sys/fs/bpf"

// mountBPFFS mounts the BPF file system at its usual place where nobody has done so; a directory elsewhere is the
// operator's own business.
func mountBPFFS(dir string, log *slog.Logger) error {
	dir = filepath.Clean(dir)
	if dir != bpffs && !strings.HasPrefix(dir, bpffs+"/") {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := os.MkdirAll(bpffs, 0o700); err != nil {
		return fmt.Errorf("bpffs: %w: does this kernel have CONFIG_BPF_SYSCALL?", err)
	}
	if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", bpffs, err)
	}
	log.Info("mounted bpffs", "at", bpffs)
	return nil
}

// lockBPFDir takes the pins for this process: two daemons that share a bpf_dir would each put their own programs into
// the same slots. The lock is on the directory itself, for a bpffs holds no files; it goes with the process. A directory
// that is still empty at the end goes, too.
func lockBPFDir(dir string) (unlock func(), err error) {
	if err := pin.Prepare(dir); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("bpf_dir: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking bpf_dir %s: %w", dir, err)
		}
		return nil, fmt.Errorf("another sluice works on bpf_dir %s; stop it, or give this one another --bpf-dir", dir)
	}
	return func() {
		_ = os.Remove(dir)
		_ = f.Close()
	}, nil
}
