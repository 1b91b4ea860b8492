//go:build image

package image

import (
	"encoding/binary"
	"io"
	"os"
	"testing"
)

// written is one write of a machine to its disk; a barrier ends what may reach the disk in another order.
type written struct {
	number  int // in the log
	at      int64
	data    []byte
	barrier bool
}

// Flags of dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst).
const (
	logMagic   = 0x6a736677736872
	logFlush   = 1
	logFUA     = 2
	logDiscard = 4
)

// writes reads what QEMU's blklogwrites has logged: a superblock, then for each write a sector with its place and flags and the sectors
// of its data; all numbers are little-endian.
func writes(t testing.TB, path string) (out []written) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var super struct {
		Magic, Version, Entries uint64
		SectorSize              uint32
	}
	if err := binary.Read(f, binary.LittleEndian, &super); err != nil || super.Magic != logMagic || super.SectorSize != sector {
		t.Fatalf("%s is no log of writes: %+v %v", path, super, err)
	}
	at := int64(sector)
	for range super.Entries {
		var e struct{ Sector, Sectors, Flags, Length uint64 }
		if err := binary.Read(io.NewSectionReader(f, at, sector), binary.LittleEndian, &e); err != nil {
			t.Fatal(err)
		}
		at += sector
		w := written{number: len(out), at: int64(e.Sector) * sector, barrier: e.Flags&(logFlush|logFUA) != 0}
		if e.Flags&logDiscard == 0 {
			w.data = make([]byte, e.Sectors*sector)
			if _, err := f.ReadAt(w.data, at); err != nil {
				t.Fatal(err)
			}
			at += int64(len(w.data))
		}
		out = append(out, w)
	}
	return out
}

// within is what of the writes falls into a partition, by its own addresses.
func within(all []written, first, size int64) (out []written) {
	for _, w := range all {
		switch from, to := max(w.at, first), min(w.at+int64(len(w.data)), first+size); {
		case from < to:
			out = append(out, written{number: w.number, at: from - first, data: w.data[from-w.at : to-w.at], barrier: w.barrier})
		case w.barrier && len(out) > 0 && !out[len(out)-1].barrier:
			out = append(out, written{number: w.number, barrier: true})
		}
	}
	return out
}

// put writes, and returns how to take it back.
func (w written) put(t testing.TB, f *os.File) (undo written) {
	t.Helper()
	undo = written{number: w.number, at: w.at, data: make([]byte, len(w.data))}
	if _, err := f.ReadAt(undo.data, w.at); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(w.data, w.at); err != nil {
		t.Fatal(err)
	}
	return undo
}
