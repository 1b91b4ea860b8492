package config

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
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
	for n := range 10_000 {
		lines = append(lines, fmt.Sprintf("192.0.%d.%d", n%64, n/64))
	}
	cache, read, followed := new(Cache), "", 0
	src := Source{Name: "edge.yaml", Bytes: []byte(yaml), ReadFile: func(string) ([]byte, error) { return []byte(read), nil }}
	for n := range 300 {
		before, good := read, slices.Clone(lines)
		around := rng.IntN(len(lines))
		for range 1 + rng.IntN(3) {
			at := min(len(lines), around+rng.IntN(1000))
			if rng.IntN(8) == 0 {
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
		fresh := &setFile{contents: []byte(before)}
		fresh.prefixes = newReport("").setLines("", "", fresh.contents)
		fresh.good, fresh.lines, fresh.families = true, len(fresh.prefixes), familiesOf(fresh.prefixes)
		fresh.prefixes = sortedSet(fresh.prefixes)
		if again := (&setFile{contents: []byte(read)}); again.follow(fresh) {
			followed++
		}
		if rng.IntN(8) > 0 { // of a file with doubles nothing is followed
			lines = distinct(lines)
		}
	}
	if followed < 100 {
		t.Errorf("only %d files followed another: this shows nothing", followed)
	}
}

// distinct leaves out lines that stood before.
func distinct(lines []string) (out []string) {
	seen := map[string]bool{}
	for _, l := range lines {
		if word := strings.TrimSpace(l); !seen[word] {
			seen[word] = true
			out = append(out, l)
		}
	}
	return out
}

func TestExchangeTakesAndBrings(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	some := func(n int) []netip.Prefix {
		out := make([]netip.Prefix, rng.IntN(n))
		for i := range out {
			out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(64))}), 30+rng.IntN(3))
		}
		return sortedSet(out)
	}
	for range 5000 {
		list, gone, come := some(40), some(6), some(6)
		want := slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return slices.Contains(gone, p) })
		want = sortedSet(append(want, come...))
		before := slices.Clone(list)
		if got := Exchange(list, gone, come); !slices.Equal(got, want) || !slices.Equal(list, before) {
			t.Fatalf("%v without %v and with %v became %v", before, gone, come, got)
		}
	}
}
