// Package image boots the node image as a machine would: its disk, from firmware on, in QEMU without KVM. The image holds no code for
// tests; what they need in it comes as credentials of the firmware.
package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Image is what `make image` makes.
type Image struct {
	Dir  string
	Disk string // the raw disk
	UKI  string
}

// Build has the image of this tree made, if it is not there, and returns where it is. More are variables of images/build, NAME=VALUE.
func Build(t testing.TB, more ...string) Image {
	t.Helper()
	root := moduleRoot(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "images", "build"))
	cmd.Env = append(os.Environ(), more...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Run(); err != nil {
		t.Fatalf("images/build: %v", err)
	}
	dir := filepath.Join(root, ".cache", "image", "out")
	for _, variable := range more {
		if out, ok := strings.CutPrefix(variable, "OUT="); ok {
			dir = out
		}
	}
	return Image{Dir: dir, Disk: filepath.Join(dir, "sluice.raw"), UKI: filepath.Join(dir, "sluice.efi")}
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	return strings.TrimSpace(string(out))
}
