package host

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/tests/nstest"

	"golang.org/x/sys/unix"
)

// onDisk opens a Host whose state directory is a disk of its own, and what it reports last.
func onDisk(t *testing.T, disk *nstest.Disk, spare string) (h *Host, told *error) {
	t.Helper()
	told = new(error)
	h, err := New(slog.New(slog.DiscardHandler), Options{StateDir: disk.Dir, Spare: spare, Wrote: func(err error) { *told = err }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h, told
}

func absent(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

func TestAFullDiskKeepsNoStepFromBeingDoneAndDownFromGivingBack(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before := machine(t)
	disk, spare := nstest.NewDisk(t, 64), filepath.Join(t.TempDir(), "sluice.sock.host.json")
	disk.Fill(t)
	h, told := onDisk(t, disk, spare)
	apply(t, h, gateway())
	if !errors.Is(*told, unix.ENOSPC) || !strings.Contains((*told).Error(), spare) {
		t.Errorf("the full disk is told as: %v", *told)
	}

	// The next process of this boot knows what is ours, though the disk is still full.
	h, _ = onDisk(t, disk, spare)
	if ops := Diff(observe(t, h), gateway()); len(ops) > 0 {
		t.Errorf("the next process would do %v", ops)
	}
	disk.Free(t)
	h.Settle()
	if data, err := os.ReadFile(filepath.Join(disk.Dir, "host.json")); err != nil || !json.Valid(data) {
		t.Errorf("with room: %q, %v", data, err)
	}
	absent(t, spare)
	disk.Fill(t)
	down(t, h)
	same(t, "down", before, machine(t))
	absent(t, spare, filepath.Join(disk.Dir, "host.json"))
}

// What the disk has is older then, and whole.
func TestOfTwoLedgersTheLaterOneIsBelieved(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before := machine(t)
	disk, spare := nstest.NewDisk(t, 64), filepath.Join(t.TempDir(), "spare")
	h, told := onDisk(t, disk, spare)
	first := State{Links: []Link{{Name: "eth0", Up: true}}, Addresses: []Address{{Link: "eth0", Prefix: pfx("198.18.0.2/30")}}}
	apply(t, h, first)
	if *told != nil {
		t.Error(*told)
	}
	onTheDisk, err := os.ReadFile(filepath.Join(disk.Dir, "host.json"))
	if err != nil {
		t.Fatal(err)
	}
	disk.Fill(t)
	second := first
	second.Addresses = []Address{{Link: "eth0", Prefix: pfx("198.18.7.2/30")}}
	apply(t, h, second)
	if now, err := os.ReadFile(filepath.Join(disk.Dir, "host.json")); err != nil || string(now) != string(onTheDisk) {
		t.Errorf("the full disk has %q (%v), had %q", now, err, onTheDisk)
	}
	ip(t, "addr add 198.18.0.2/30 dev eth0") // somebody's own by now
	h, _ = onDisk(t, disk, spare)
	down(t, h)
	ip(t, "addr del 198.18.0.2/30 dev eth0") // it is there
	same(t, "down", before, machine(t))
}

// Without either, what was set counts as found, and nothing is taken for ours that may not be.
func TestWithoutALedgerNothingIsRemoved(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	disk := nstest.NewDisk(t, 64)
	disk.Fill(t)
	h, told := onDisk(t, disk, filepath.Join(disk.Dir, "spare"))
	want := State{Links: []Link{{Name: "eth0", Up: true}}, Addresses: []Address{{Link: "eth0", Prefix: pfx("198.18.0.2/30")}}}
	apply(t, h, want)
	if *told == nil || !strings.Contains((*told).Error(), "counts as found there") {
		t.Errorf("told %v", *told)
	}
	set := machine(t)
	h, _ = onDisk(t, disk, filepath.Join(disk.Dir, "spare"))
	apply(t, h, want)
	down(t, h)
	same(t, "down", set, machine(t))
}

// A disk that a fault has made read-only keeps the old ledger, which nobody may believe once all of it is given back.
func TestWhatWasGivenBackUnderAReadOnlyDiskIsNotClaimedAgain(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before := machine(t)
	disk, spare := nstest.NewDisk(t, 64), filepath.Join(t.TempDir(), "spare")
	h, told := onDisk(t, disk, spare)
	apply(t, h, State{Links: []Link{{Name: "eth0", Up: true}}, Addresses: []Address{{Link: "eth0", Prefix: pfx("198.18.0.2/30")}}})
	disk.ReadOnly(t, true)
	down(t, h)
	if !errors.Is(*told, unix.EROFS) {
		t.Errorf("told %v", *told)
	}
	same(t, "down", before, machine(t))
	ip(t, "addr add 198.18.0.2/30 dev eth0") // somebody's own by now
	set := machine(t)
	h, told = onDisk(t, disk, spare)
	down(t, h)
	same(t, "the next process", set, machine(t))
	disk.ReadOnly(t, false)
	if h.Settle(); *told != nil {
		t.Error(*told)
	}
	absent(t, spare, filepath.Join(disk.Dir, "host.json"))
}

func TestAStepWhoseClaimCannotBeWrittenForAnotherReasonIsNotDone(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	dir := filepath.Join(t.TempDir(), "state")
	h, err := New(slog.New(slog.DiscardHandler), Options{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	before := machine(t)
	want := State{Addresses: []Address{{Link: "eth0", Prefix: pfx("198.18.0.2/30")}}}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, op := range Diff(observe(t, h), want) {
		if err := h.Apply(t.Context(), op); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", op, err)
		}
	}
	same(t, "without a directory", before, machine(t))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	apply(t, h, want)
	down(t, h)
	same(t, "down", before, machine(t))
}

func TestASpareOfSomebodyElseIsNotBelieved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spare")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !ownFile(path) {
		t.Error("our own file is not believed")
	}
	if err := os.Chmod(path, 0o622); err != nil || ownFile(path) {
		t.Errorf("a file that all may write is believed (%v)", err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, 65534, 65534)); err != nil || ownFile(path) {
		t.Errorf("a file of another user is believed (%v)", err)
	}
	link := path + "-link"
	if err := os.Symlink("/proc/self/status", link); err != nil || ownFile(link) {
		t.Errorf("a symbolic link is believed (%v)", err)
	}
}
