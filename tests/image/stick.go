package image

import (
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Stick is a USB stick with the label of configurations, FAT without a partition table, and files on it by path. It is what Options.Devices
// takes; with no files, nothing.
func Stick(t testing.TB, files map[string]string) []string {
	t.Helper()
	if len(files) == 0 {
		return nil
	}
	image := filepath.Join(t.TempDir(), "stick")
	run(t, nil, "truncate", "--size=64M", image)
	run(t, nil, "mformat", "-i", image, "-F", "-v", "SLUICE-CONF", "::")
	made := map[string]bool{".": true}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if dir := path.Dir(name); !made[dir] {
			run(t, nil, "mmd", "-i", image, "::"+dir)
			made[dir] = true
		}
		run(t, []byte(files[name]), "mcopy", "-i", image, "-", "::"+name)
	}
	file := strings.ReplaceAll(image, ",", ",,") // a subtest's name may have one, and QEMU's options end there
	return []string{"-device", "qemu-xhci", "-drive", "if=none,id=stick,format=raw,file=" + file, "-device", "usb-storage,drive=stick,removable=on"}
}
