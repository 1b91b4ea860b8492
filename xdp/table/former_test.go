package table

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// TestNoPinOfAFormerLayoutIsLeftAndThoseOfLaterOnesStay: what an upgrade leaves would hold memory until the machine is booted again.
func TestNoPinOfAFormerLayoutIsLeftAndThoseOfLaterOnesStay(t *testing.T) {
	g := newGround(t)
	place := func(name string, version int) string {
		t.Helper()
		m, err := g.StateMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}, name, version)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		return g.StateMapPath(name, version)
	}
	var goes, stays []string
	for _, name := range formerPins {
		goes = append(goes, place(name, 1))
	}
	for _, now := range sharedPins {
		stays = append(stays, place(now.pin, now.version), place(now.pin, now.version+1))
		for version := 1; version < now.version; version++ {
			if path := place(now.pin, version); slices.Contains(flowPins, now.pin) {
				stays = append(stays, path) // until its entries were taken over
			} else {
				goes = append(goes, path)
			}
		}
	}
	if err := removeFormer(g.Dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range goes {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	for _, path := range stays {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}
