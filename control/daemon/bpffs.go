package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
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
