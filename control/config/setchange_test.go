package config

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestASetFileThatChangedIsReadAsAFreshOne edits a file again and again, and reads it by one Cache and from scratch.
func TestASetFileThatChangedIsReadAsAFreshOne(t *testing.T) {
	const yaml = `
interfaces: [{name: eth0, role: uplink}]
sets: [{name: block, files: [block.netset]}]
policy: {ingress: {rules: [{name: r, from: [block], action: drop}, {name: six, from: ["2001:db8::/32"], action: drop}]}}
`
	rng := rand.New(rand.NewPCG(3, 3))
	line := func() string {
		switch rng.IntN(12) {
		case 0:
			return "# a comment"
		case 1:
			return ""
		case 2:
			return fmt.Sprintf("2001:db8::%x", rng.IntN(1<<16))
		case 3:
			return fmt.Sprintf("10.%d.0.0/16\r", rng.IntN(256))
		case 4:
			if rng.IntN(10) == 0 {
				return []string{"10.1.1.1/8", "x", byteOrderMark + "10.1.1.1", "\x00", "BZh", "PK\x03\x04"}[rng.IntN(6)]
			}
		}
		return fmt.Sprintf("10.%d.%d.%d", rng.IntN(256), rng.IntN(256), rng.IntN(256))
	}
	var lines []string
	for range 10_000 {
		lines = append(lines, fmt.Sprintf("192.0.2.%d", rng.IntN(256)))
	}
	cache, read, followed := new(Cache), "", 0
	src := Source{Name: "edge.yaml", Bytes: []byte(yaml), ReadFile: func(string) ([]byte, error) { return []byte(read), nil }}
	for n := range 300 {
		before, good := read, slices.Clone(lines)
		for range 1 + rng.IntN(3) {
			at := rng.IntN(len(lines) + 1)
			if rng.IntN(4) == 0 {
				at = []int{0, len(lines)}[rng.IntN(2)]
			}
			end := min(len(lines), at+rng.IntN(3))
			if rng.IntN(20) == 0 {
				end = min(len(lines), at+2000)
			}
			var fresh []string
			for range rng.IntN(4) {
				fresh = append(fresh, line())
			}
			if rng.IntN(20) == 0 {
				fresh = append(fresh, slices.Repeat([]string{"198.51.100.0/24"}, 2500)...)
			}
			lines = slices.Replace(lines, at, end, fresh...)
		}
		read = strings.Join(lines, "\n") + []string{"", "\n"}[rng.IntN(2)]
		want, wrong := Parse(src)
		got, err := cache.Parse(src)
		if fmt.Sprint(err) != fmt.Sprint(wrong) || !reflect.DeepEqual(got, want) {
			t.Fatalf("change %d: read after another file it is another: errors %v, want %v", n, err, wrong)
		}
		if wrong != nil {
			lines = good // else nothing is remembered any more
			continue
		}
		f, fresh := cache.last.files["block.netset"], &setFile{contents: []byte(before)}
		fresh.prefixes, fresh.marks = newReport("").setLines("", "", fresh.contents)
		fresh.good, fresh.families = true, familiesOf(fresh.prefixes)
		if len(f.marks) > 0 && f.marks[len(f.marks)-1].prefixes > len(f.prefixes) {
			t.Fatalf("change %d: a mark at prefix %d of %d", n, f.marks[len(f.marks)-1].prefixes, len(f.prefixes))
		}
		if again := (&setFile{contents: f.contents}); again.follow(fresh) {
			followed++
		}
	}
	if followed < 100 {
		t.Errorf("only %d files followed another: this shows nothing", followed)
	}
}
