package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unicode/utf16"
)

// The partitions of the disk, by their labels.
const (
	ESP    = "sluice-esp"
	Config = "SLUICE-CONFIG"
	Data   = "sluice-data"
)

// Disk is a copy of the image's disk, which a machine may write to.
type Disk struct{ Path string }

// NewDisk copies the disk of an image and makes it so many MiB larger. It goes with the test.
func NewDisk(t testing.TB, of Image, larger int64) *Disk {
	t.Helper()
	d := &Disk{Path: filepath.Join(t.TempDir(), "disk.raw")}
	run(t, nil, "cp", "--sparse=always", "--dereference", of.Disk, d.Path)
	info, err := os.Stat(d.Path)
	if err == nil {
		err = os.Truncate(d.Path, info.Size()+larger<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Put writes a file on a FAT partition; name is its path there.
func (d *Disk) Put(t testing.TB, label, name, content string) {
	t.Helper()
	run(t, []byte(content), "mcopy", "-o", "-i", d.at(t, label), "-", "::"+name)
}

// Dir makes a directory on a FAT partition.
func (d *Disk) Dir(t testing.TB, label, name string) {
	t.Helper()
	run(t, nil, "mmd", "-i", d.at(t, label), "::"+name)
}

// PutFile is Put for what is in a file.
func (d *Disk) PutFile(t testing.TB, label, name, path string) {
	t.Helper()
	run(t, nil, "mcopy", "-o", "-i", d.at(t, label), path, "::"+name)
}

// Get reads a file of a FAT partition.
func (d *Disk) Get(t testing.TB, label, name string) string {
	t.Helper()
	return run(t, nil, "mcopy", "-n", "-i", d.at(t, label), "::"+name, "-")
}

// Damage overwrites the beginning of a partition.
func (d *Disk) Damage(t testing.TB, label string) {
	t.Helper()
	at, size := d.Partition(t, label)
	f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, int(min(size, 64<<20))), at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// at is the partition in the words of mtools.
func (d *Disk) at(t testing.TB, label string) string {
	t.Helper()
	first, _ := d.Partition(t, label)
	return fmt.Sprintf("%s@@%d", d.Path, first)
}

const sector = 512

// Partition is where a partition begins and how long it is, in bytes. UEFI 2.10, 5.3.3: 128 entries of 128 bytes from LBA 2 on; type and
// identity, 16 bytes each, then first and last LBA, attributes, and the name in UTF-16, everything little-endian.
func (d *Disk) Partition(t testing.TB, label string) (first, size int64) {
	t.Helper()
	first, size, found := d.find(t, label)
	if !found {
		t.Fatalf("the disk has no partition %s", label)
	}
	return first, size
}

func (d *Disk) find(t testing.TB, label string) (first, size int64, found bool) {
	t.Helper()
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := make([]byte, 128*128)
	if _, err := f.ReadAt(table, 2*sector); err != nil {
		t.Fatal(err)
	}
	for ; len(table) > 0; table = table[128:] {
		var name [36]uint16
		if _, err := binary.Decode(table[56:128], binary.LittleEndian, &name); err != nil {
			t.Fatal(err)
		}
		if string(bytes.TrimRight([]byte(string(utf16.Decode(name[:]))), "\x00")) == label {
			from, to := binary.LittleEndian.Uint64(table[32:]), binary.LittleEndian.Uint64(table[40:])
			return int64(from) * sector, int64(to-from+1) * sector, true
		}
	}
	return 0, 0, false
}

// run runs a program that has to succeed and returns what it prints.
func run(t testing.TB, stdin []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, &said)
	}
	return string(out)
}
