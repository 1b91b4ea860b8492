package pin_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sluice/xdp/pin"
)

// Holds reads names, so that any file system does.
func TestWhatHooksNeedIsHeldByName(t *testing.T) {
	root := t.TempDir()
	dir := pin.At(root)
	hooks := []pin.Hook{{Kind: "tcx-ingress", Interface: "eth0.100"}, {Kind: "tcx-egress", Interface: "eth0.100"}}
	pins := []string{
		"links/tcx-ingress/eth0_d100", "links/tcx-egress/eth0_d100", "slots/tcx-ingress/eth0_d100", "slots/tcx-egress/eth0_d100", "gen/tc-abc-1/prog-x",
	}
	put := func(pin string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(pin)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, pin), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(want bool, what string) {
		t.Helper()
		if got, err := dir.Holds(hooks, "tc", "abc"); got != want || err != nil {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	holds(false, "nothing")
	for _, p := range pins {
		put(p)
	}
	put("gen/tc-old-1/prog-x")
	holds(true, "everything")
	var rooms []string
	if err := dir.EachRoom(root, func(room string) { rooms = append(rooms, room) }); err != nil || len(rooms) != 8 || slices.Contains(rooms, filepath.Join(root, "gen/tc-abc-1")) {
		t.Errorf("the rooms are %q, %v", rooms, err)
	}
	for _, p := range pins {
		gone := filepath.Join(root, p)
		if filepath.Dir(filepath.Dir(p)) == "gen" {
			gone = filepath.Dir(gone)
		}
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
		holds(false, p+" removed")
		put(p)
	}
	if err := os.Rename(filepath.Join(root, "gen/tc-abc-1"), filepath.Join(root, "gen/tc-abc-1-staged")); err != nil {
		t.Fatal(err)
	}
	holds(false, "a generation that is not complete")
}
