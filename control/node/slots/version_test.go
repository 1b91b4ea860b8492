package slots

import (
	"slices"
	"testing"
)

// The examples of UAPI's version format specification, and versions as git describe makes them.
func TestVersionsCompareAsSystemdComparesThem(t *testing.T) {
	for _, c := range []struct {
		a    string
		want int
		b    string
	}{
		{"11", 0, "11"}, {"systemd-123", 0, "systemd-123"}, {"bar-123", -1, "foo-123"}, {"123a", 1, "123"}, {"123.a", 1, "123"},
		{"123.a", -1, "123.b"}, {"123a", 1, "123.a"}, {"11α", 0, "11β"}, {"B", -1, "a"}, {"", -1, "0"}, {"0.", 1, "0"}, {"0.0", 1, "0"},
		{"0", 1, "~"}, {"", 1, "~"}, {"", 0, ""},
		{"~1", -1, "1"}, {"122.1", -1, "123~rc1-1"}, {"123~rc1-1", -1, "123~rc2"}, {"123~rc2", -1, "123"}, {"123", -1, "123.1"},
		{"123-a", -1, "123-b"}, {"123-a.1", 1, "123-a"}, {"123-3", -1, "123-3^post1"}, {"123^post1", 1, "123-3"}, {"123-a", -1, "123-a.1"},
		{"1.9", -1, "1.10"}, {"1.010", 0, "1.10"}, {"1.2", -1, "1.2-3-gabcdef0"}, {"1.2-3-gabcdef0", -1, "1.2-12-g0123456"},
		{"1.2-12-g0123456", -1, "1.3~rc1"}, {"v1.2", -1, "v1.3"}, {"99999999999999999999998", -1, "99999999999999999999999"},
	} {
		if got := Compare(c.a, c.b); got != c.want {
			t.Errorf("Compare(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := Compare(c.b, c.a); got != -c.want {
			t.Errorf("Compare(%q, %q) = %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

func TestNamesOfImages(t *testing.T) {
	for file, want := range map[string]Name{
		"sluice_1.2.efi":                 {Version: "1.2"},
		"sluice_1.2+3.efi":               {Version: "1.2", Counted: true, Left: 3},
		"sluice_1.2+0-3.efi":             {Version: "1.2", Counted: true, Done: 3},
		"sluice_1.2-5-gabc~rc^x+2-1.efi": {Version: "1.2-5-gabc~rc^x", Counted: true, Left: 2, Done: 1},
	} {
		if got, ok := ParseName(file); !ok || got != want || got.File() != file {
			t.Errorf("%s: %+v, %v, %s", file, got, ok, got.File())
		}
	}
	if n, ok := ParseName("sluice_1+3-0.efi"); !ok || n != (Name{Version: "1", Counted: true, Left: 3}) {
		t.Errorf("a counter of -0: %+v %v", n, ok)
	}
	for _, file := range []string{"", "sluice.efi", "sluice_.efi", "sluice_1+.efi", "sluice_1+3+2.efi", "sluice_1+x.efi", "sluice_1 2.efi", "sluice_../x.efi",
		"sluice_1.efi.new", "debian_1.efi", ".sluice_1.efi", "sluice_1+3-.efi", "sluice_1+99999999999.efi"} {
		if n, ok := ParseName(file); ok {
			t.Errorf("%s is taken for %+v", file, n)
		}
	}
}

// What boot.c of systemd 257 does: config_entry_compare, and config_select_default_entry.
func TestWhatSystemdBootChooses(t *testing.T) {
	for _, c := range []struct {
		files             []string
		oneshot, standing string
		want              string
	}{
		{[]string{"sluice_1.1.efi", "sluice_1.0.efi"}, "", "", "sluice_1.1.efi"},
		{[]string{"sluice_1.9.efi", "sluice_1.10.efi"}, "", "", "sluice_1.10.efi"},
		{[]string{"sluice_1.1.efi", "sluice_1.2+3.efi"}, "", "", "sluice_1.2+3.efi"},
		{[]string{"sluice_1.1.efi", "sluice_1.2+1-2.efi"}, "", "", "sluice_1.2+1-2.efi"},
		{[]string{"sluice_1.1.efi", "sluice_1.2+0-3.efi"}, "", "", "sluice_1.1.efi"},
		{[]string{"sluice_1.1.efi", "sluice_1.0+3.efi"}, "", "", "sluice_1.1.efi"},
		{[]string{"sluice_1.1.efi", "sluice_1.0+3.efi"}, "sluice_1.0.efi", "", "sluice_1.0+3.efi"},
		{[]string{"sluice_1.1.efi", "sluice_1.0+3.efi"}, "sluice_1.0+3.efi", "", "sluice_1.1.efi"},
		{[]string{"sluice_1.1.efi", "sluice_1.0.efi"}, "", "SLUICE_1.0.EFI", "sluice_1.0.efi"},
		{[]string{"sluice_1.1.efi", "sluice_1.0.efi"}, "gone.efi", "sluice_1.0*", "sluice_1.0.efi"},
		{[]string{"sluice_1.1+0-3.efi", "sluice_1.0+0-1.efi"}, "", "", "sluice_1.1+0-3.efi"},
	} {
		var names []Name
		for _, f := range c.files {
			n, _ := ParseName(f)
			names = append(names, n)
		}
		for range 2 {
			if got, ok := Choose(names, c.oneshot, c.standing); !ok || got.File() != c.want {
				t.Errorf("of %q (once %q, always %q) it chooses %s, want %s", c.files, c.oneshot, c.standing, got.File(), c.want)
			}
			slices.Reverse(names)
		}
	}
	if n, ok := Choose(nil, "", ""); ok {
		t.Errorf("of nothing it chooses %+v", n)
	}
}
