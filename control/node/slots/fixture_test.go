package slots

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf16"
)

// efiImage is a PE file with the sections that a UKI has, as ukify makes them: enough for whoever reads names and .osrel.
func efiImage(machine uint16, sections ...[2]string) []byte {
	const align = 512
	head := make([]byte, 0x40)
	copy(head, "MZ")
	binary.LittleEndian.PutUint32(head[0x3c:], 0x40)
	out := bytes.NewBuffer(head)
	out.WriteString("PE\x00\x00")
	optional := pe.OptionalHeader64{Magic: 0x20b, SectionAlignment: 4096, FileAlignment: align, NumberOfRvaAndSizes: 16}
	put := func(v any) {
		if err := binary.Write(out, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	put(pe.FileHeader{Machine: machine, NumberOfSections: uint16(len(sections)), SizeOfOptionalHeader: uint16(binary.Size(optional)), Characteristics: 0x22})
	put(optional)
	at := uint32(4096)
	for _, s := range sections {
		h := pe.SectionHeader32{VirtualSize: uint32(len(s[1])), VirtualAddress: at, SizeOfRawData: uint32(len(s[1])+align-1) &^ (align - 1), PointerToRawData: at}
		copy(h.Name[:], s[0])
		put(h)
		at += h.SizeOfRawData
	}
	out.Write(make([]byte, 4096-out.Len()))
	for _, s := range sections {
		out.WriteString(s[1])
		out.Write(make([]byte, -len(s[1])&(align-1)))
	}
	return out.Bytes()
}

// image is a UKI of a version.
func image(version string) []byte {
	release := fmt.Sprintf("ID=debian\nIMAGE_ID=\"sluice\"\nIMAGE_VERSION=%s\n", version)
	return efiImage(pe.IMAGE_FILE_MACHINE_AMD64, [2]string{".osrel", release}, [2]string{".linux", "kernel of " + version}, [2]string{".initrd", string(bytes.Repeat([]byte(version), 3000))})
}

// node is a machine of a test: an ESP in memory or in a directory, and a firmware whose variables are files.
type node struct {
	*Machine
	dir string
	key string
}

// newNode runs a version, trusts a key, and has these files in EFI/Linux.
func newNode(t *testing.T, version string, files ...string) *node {
	t.Helper()
	n := &node{dir: t.TempDir()}
	for _, d := range []string{"efi/EFI/Linux", "efivars", "keys"} {
		if err := os.MkdirAll(n.path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	n.key = n.path("maker")
	_, secret, shown, err := updateKey() // not GenerateKey: what the firmware wants takes a second
	if err := errors.Join(err, writeNew(n.key, "PRIVATE KEY", secret, 0o600), writeNew(n.path("keys", "image.pub"), "PUBLIC KEY", shown, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name, ok := ParseName(f)
		if !ok {
			t.Fatalf("%s is no name", f)
		}
		n.write(t, n.esp(f), image(name.Version))
	}
	n.boot(t, version)
	return n
}

func (n *node) path(parts ...string) string {
	return filepath.Join(append([]string{n.dir}, parts...)...)
}
func (n *node) esp(file string) string { return n.path("efi/EFI/Linux", file) }

func (n *node) options() Options {
	return Options{ESP: n.path("efi"), EFIVars: n.path("efivars"), OSRelease: n.path("os-release"),
		Keys: []string{n.path("keys", "*.pub")}, Notes: n.path("image"), Arch: "amd64", MaxBytes: 1 << 20}
}

// boot is a start of a version, by an entry that is not counted.
func (n *node) boot(t *testing.T, version string) {
	t.Helper()
	if err := n.efiVars().unset(varCounted); err != nil { // it does not outlive a boot
		t.Fatal(err)
	}
	n.setVar(t, varSelected, Name{Version: version}.id())
	n.open(t, version)
}

func (n *node) efiVars() efivars { return efivars(n.path("efivars")) }

func (n *node) open(t *testing.T, version string) {
	t.Helper()
	n.write(t, n.path("os-release"), fmt.Appendf(nil, "IMAGE_ID=sluice\nIMAGE_VERSION=%q\n", version))
	m, err := Open(n.options())
	if err != nil {
		t.Fatal(err)
	}
	n.Machine = m
}

// try is a boot that the loader counted: from is the file before.
func (n *node) try(t *testing.T, from string) Name {
	t.Helper()
	name, ok := ParseName(from)
	if !ok || !name.Counted {
		t.Fatalf("%s is not counted", from)
	}
	n.setVar(t, varSelected, name.id())
	name = bumped(name)
	if err := os.Rename(n.esp(from), n.esp(name.File())); err != nil {
		t.Fatal(err)
	}
	n.setVar(t, varCounted, `\EFI\Linux\`+name.File())
	n.open(t, name.Version)
	return name
}

// bumped is what systemd-boot makes of a name before it starts it.
func bumped(n Name) Name {
	if n.Counted {
		n.Left, n.Done = max(0, n.Left-1), n.Done+1
	}
	return n
}

func (n *node) setVar(t *testing.T, name, value string) {
	t.Helper()
	data := []byte{7, 0, 0, 0}
	for _, u := range append(utf16.Encode([]rune(value)), 0) {
		data = binary.LittleEndian.AppendUint16(data, u)
	}
	n.write(t, n.path("efivars", name+"-"+loaderGUID), data)
}

func (n *node) write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// release writes a signed image and returns its path.
func (n *node) release(t *testing.T, version string) string { return n.signed(t, image(version)) }

func (n *node) signed(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.efi")
	n.write(t, path, data)
	if _, err := Sign(n.key, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// files are the names in EFI/Linux.
func (n *node) files(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(n.path("efi/EFI/Linux"))
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
