//go:build image

package image

import (
	"bytes"
	"debug/pe"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/control/node/slots"
)

// variant is another version of an image: the same kernel and system, with files of its own over it. To build each from packages would
// take minutes.
type variant struct {
	version string
	cmdline string            // appended
	files   map[string]string // over those of the image, by path without a slash in front
}

var imageVersion = regexp.MustCompile(`(?m)^IMAGE_VERSION=.*$`)

// make writes the variant as a UKI, signed by a key, and returns its path.
func (v variant) make(t testing.TB, of Image, key string) string {
	t.Helper()
	dir := t.TempDir()
	f, err := pe.Open(of.UKI)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := func(name string, change func([]byte) []byte) string {
		section := f.Section("." + name)
		if section == nil {
			t.Fatalf("%s has no section .%s", of.UKI, name)
		}
		data, err := section.Data()
		if err != nil {
			t.Fatal(err)
		}
		return write(t, filepath.Join(dir, name), change(data))
	}
	as := func(b []byte) []byte { return b }
	var release []byte
	osrel := part("osrel", func(b []byte) []byte {
		release = imageVersion.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte("IMAGE_VERSION="+v.version))
		return release
	})
	cmdline := part("cmdline", func(b []byte) []byte { return append(bytes.TrimRight(b, "\x00\n "), " "+v.cmdline...) })
	files := map[string]string{"usr/lib/os-release": string(release)}
	for path, text := range v.files {
		files[path] = text
	}
	out := filepath.Join(dir, "sluice_"+v.version+".efi")
	tools := strings.TrimSpace(run(t, nil, filepath.Join(moduleRoot(t), "images", "tools")))
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", filepath.Join(tools, "usr/bin/ukify"), "build", "--linux="+part("linux", as),
		"--initrd="+part("initrd", as), "--initrd="+write(t, filepath.Join(dir, "over"), cpio(files)), "--cmdline=@"+cmdline,
		"--os-release=@"+osrel, "--uname="+strings.TrimRight(string(read(t, part("uname", as))), "\x00"),
		"--stub="+filepath.Join(tools, "usr/lib/systemd/boot/efi/linuxx64.efi.stub"), "--output="+out)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(tools, "usr/lib/python3/dist-packages"), "PYTHONDONTWRITEBYTECODE=1")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ukify: %v\n%s", err, said)
	}
	if _, err := slots.Sign(key, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// cpio is an archive in the kernel's format ("newc", Documentation/driver-api/early-userspace/buffer-format.rst): every number is eight
// hexadecimal digits, and names and contents end at multiples of four.
func cpio(files map[string]string) []byte {
	var out bytes.Buffer
	number := 0
	put := func(name string, mode int, data string) {
		number++
		fmt.Fprintf(&out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		out.WriteString(name + "\x00")
		out.Write(make([]byte, -out.Len()&3))
		out.WriteString(data)
		out.Write(make([]byte, -out.Len()&3))
	}
	made := map[string]bool{}
	for _, path := range slices.Sorted(func(yield func(string) bool) {
		for p := range files {
			if !yield(p) {
				return
			}
		}
	}) {
		for i := range path {
			if dir := path[:i]; path[i] == '/' && !made[dir] {
				made[dir] = true
				put(dir, 0o40755, "")
			}
		}
		put(path, 0o100644, files[path])
	}
	put("TRAILER!!!", 0, "")
	return out.Bytes()
}
