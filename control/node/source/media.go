package source

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DataLabel is the partition label of the image's own data partition: the disk that has it is the image's.
const DataLabel = "sluice-data"

// Disks are the machine's, as lsblk tells of them.
type Disks struct{ Dir string } // where media are mounted

// block is a line of lsblk.
type block struct {
	Path      string `json:"path"`
	Parent    string `json:"pkname"`
	Type      string `json:"fstype"`
	Label     string `json:"label"`
	PartLabel string `json:"partlabel"`
	Removable bool   `json:"rm"`
	Hotplug   bool   `json:"hotplug"` // a disk in a USB case says that it is not removable
}

func (b block) labelled() bool { return b.Label == Label || b.Label == fatLabel }

// List asks lsblk, which knows labels from udev, and where udev does not run reads them itself.
func (d Disks) List(ctx context.Context) ([]Medium, error) {
	out, err := exec.CommandContext(ctx, "lsblk", "--json", "--list", "--output", "PATH,PKNAME,FSTYPE,LABEL,PARTLABEL,RM,HOTPLUG").Output()
	if err != nil {
		return nil, fmt.Errorf("lsblk: %w", err)
	}
	return media(out)
}

func media(text []byte) ([]Medium, error) {
	var all struct {
		Devices []block `json:"blockdevices"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("what lsblk says is not understood: %w", err)
	}
	ours, whole := map[string]bool{}, map[string]bool{} // disks with a data partition; that are a labelled file system as a whole
	for _, b := range all.Devices {
		if b.labelled() && b.Parent == "" {
			whole[filepath.Base(b.Path)] = true
		}
		if b.PartLabel == DataLabel {
			ours[b.Parent] = true
		}
	}
	var out []Medium
	for _, b := range all.Devices {
		// Tools that format a disk without partitions write the boot sector so that the kernel sees one partition in it, from the first
		// sector on: the same file system once more.
		if !b.labelled() || whole[b.Parent] {
			continue
		}
		serves := b.Parent != "" && ours[b.Parent] // also where the image runs from a stick
		out = append(out, Medium{Path: b.Path, Type: b.Type, Serves: serves, Stick: !serves && (b.Removable || b.Hotplug)})
	}
	slices.SortFunc(out, func(a, b Medium) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(out, func(a, b Medium) bool { return a.Path == b.Path }), nil
}

// mountOptions are those of file systems that a stick may have. ext4 would write its journal back at a plain read-only mount.
var mountOptions = map[string]string{"vfat": "", "exfat": "", "iso9660": "", "ext4": "noload", "ext2": ""}

// Open mounts read-only.
func (d Disks) Open(m Medium) (string, func(), error) {
	options, known := mountOptions[m.Type]
	if !known {
		return "", nil, fmt.Errorf("its file system is %q: FAT is what every machine writes", m.Type)
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp(d.Dir, "medium-")
	if err != nil {
		return "", nil, err
	}
	if err := unix.Mount(m.Path, dir, m.Type, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		_ = os.Remove(dir)
		return "", nil, fmt.Errorf("mount: %w", err)
	}
	return dir, func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH) // a medium that was pulled must not hold up the boot
		_ = os.Remove(dir)
	}, nil
}

// Expected says whether the machine has a USB controller.
func (d Disks) Expected() bool {
	devices, err := os.ReadDir("/sys/bus/usb/devices")
	return err == nil && len(devices) > 0
}
