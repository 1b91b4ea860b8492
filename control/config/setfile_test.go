package config

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func writeSet(t testing.TB, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.netset")
	if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWhatBecomesOfTheLinesOfASetFile is the table of docs/set-files.md.
func TestWhatBecomesOfTheLinesOfASetFile(t *testing.T) {
	const addresses = "192.0.2.1/32 192.0.2.7/32"
	for _, c := range []struct{ name, contents, want, wrong string }{
		{"one a line", "192.0.2.1\n192.0.2.7/32\n", addresses, ""},
		{"no newline at the end", "192.0.2.1\n192.0.2.7", addresses, ""},
		{"CRLF, blanks and a byte order mark", "\uFEFF192.0.2.1\r\n\r\n \t192.0.2.7 \r\n", addresses, ""},
		{"comments", "# hash:net\n; more\n192.0.2.1 # one\n192.0.2.7;another\n", addresses, ""},
		{"comments that are no UTF-8", "# caf\xe9\n192.0.2.1\n192.0.2.7\n", addresses, ""},
		{"a netset of FireHOL", firehol, "192.0.2.0/24 198.51.100.7/32", ""},
		{"nothing", "", "", ""},
		{"comments alone", "# nothing today\n", "", ""},
		{"duplicates", "192.0.2.7\n192.0.2.1\n192.0.2.7/32\n", addresses, ""},
		{"prefixes within prefixes", "192.0.2.0/24\n192.0.2.0/25\n192.0.0.0/16\n", "192.0.0.0/16 192.0.2.0/24 192.0.2.0/25", ""},
		{"everything", "0.0.0.0/0\n::/0\n", "0.0.0.0/0 ::/0", ""},
		{"IPv6 in any spelling", "2001:DB8:0::1\n2001:db8::1\n", "2001:db8::1/128", ""},

		{"host bits", "192.0.2.7/24\n", "", "f:1:1: 192.0.2.7/24 has host bits set; write 192.0.2.0/24"},
		{"an IPv4-mapped address", "::ffff:192.0.2.7\n", "", "f:1:1: ::ffff:192.0.2.7 is an IPv4-mapped IPv6 address; write 192.0.2.7"},
		{"an IPv4-mapped prefix", "::ffff:192.0.2.0/120\n", "", "f:1:1: ::ffff:192.0.2.0/120 is an IPv4-mapped IPv6 prefix; write 192.0.2.0/24"},
		{"a range", "192.0.2.1-192.0.2.9\n", "", `f:1:1: "192.0.2.1-192.0.2.9" is a range; write it as prefixes`},
		{"a zone", "fe80::1%eth0\n", "", `f:1:1: "fe80::1%eth0" has a zone, and no interface can be named with an address; write fe80::1 where addresses are compared, a global one where packets are sent`},
		{"a prefix that is too long", "192.0.2.0/33\n", "", `f:1:1: "192.0.2.0/33" is not a prefix`},
		{"octets with zeros in front", "192.0.2.010\n", "", `f:1:1: "192.0.2.010" is not an IP address`},
		{"a port", "192.0.2.1:0\n", "", `f:1:1: "192.0.2.1:0" is not an IP address`},
		{"what ipset saves", "add x 192.0.2.1\n", "", "f:1:1: more than one word on a line; write one prefix or address per line"},
		{"garbage among good lines", "192.0.2.1\n\n  <html>\n192.0.2.7\nx\n", "", "f:3:3: \"<html>\" is not an IP address\nf:5:1: \"x\" is not an IP address"},
		{"no text", "192.0.2.1\n\x00\x01", "", "f: not a text file: line 2 holds a NUL byte"},
		{"an archive", "\x1f\x8b\x08\x00", "", "f: the file is compressed (gzip); unpack it first"},
		{"a line without end", strings.Repeat("x", 1<<20), "", fmt.Sprintf("f:1:1: %q is not an IP address", strings.Repeat("x", 100))},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeSet(t, c.contents)
			got, err := ReadSetFile(path)
			if c.wrong != "" {
				if said := strings.ReplaceAll(fmt.Sprint(err), path, "f"); said != c.wrong || got != nil {
					t.Errorf("got %v and the error\n%s, want\n%s", got, said, c.wrong)
				}
				return
			}
			if err != nil || strings.Trim(fmt.Sprint(got), "[]") != c.want {
				t.Errorf("got %v, %v, want %s", got, err, c.want)
			}
		})
	}
}

// TestPlainLinesAreReadAsAllOthers: the short way of most lines gives what the long one does, or leaves the line to it.
func TestPlainLinesAreReadAsAllOthers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	words := []string{"0", "1", "9", "10", "32", "33", "01", "00", "192", "255", "256", "999", "1000", ".", ".", ".", "/", "/8", "/24", "/32", " ", "\r", "#", "x", ""}
	short := 0
	for range 300_000 {
		var line string
		for n := range 4 {
			line += words[rng.IntN(11)] + []string{".", ".", ".", ""}[n]
		}
		line += []string{"", "/0", "/7", "/24", "/32", "/33", "/08"}[rng.IntN(7)]
		if rng.IntN(4) == 0 {
			at := rng.IntN(len(line) + 1)
			line = line[:at] + words[rng.IntN(len(words))] + line[at:]
		}
		end := []string{"", "\n", "\r\n", "\n192.0.2.1\n", "\r"}[rng.IntN(5)]
		got, length := plainIPv4([]byte(line + end))
		if length == 0 {
			continue
		}
		short++
		want, wrong := setWord([]byte(strings.TrimSpace(line)))
		if got != want || !wrong.none() || length != len(line)+min(len(end), strings.IndexByte(end+"\n", '\n')+1) {
			t.Fatalf("%q: %v of %d bytes, want %v, %v", line+end, got, length, want, wrong)
		}
	}
	if short < 1000 {
		t.Errorf("only %d lines were plain: this shows nothing", short)
	}
	for _, line := range []string{"192.0.2.1", "192.0.2.0/24\n", "0.0.0.0/0\r\n", "255.255.255.255/32\n"} {
		if _, length := plainIPv4([]byte(line)); length != len(line) {
			t.Errorf("%q is not plain", line)
		}
	}
}

func TestIPv4IsSortedAsAllOthers(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	var list []netip.Prefix
	for range 5000 {
		p, err := netip.AddrFrom4([4]byte{byte(rng.IntN(256)), byte(rng.IntN(3)), byte(rng.IntN(2)), byte(rng.IntN(256))}).Prefix(rng.IntN(33))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	for _, c := range []struct {
		name string
		list []netip.Prefix
	}{
		{"many", list}, {"few", list[:100]},
		{"both families", slices.Insert(slices.Clone(list), 2500, netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("::ffff:192.0.2.0/120"))},
	} {
		want := slices.Clone(c.list)
		slices.SortFunc(want, ComparePrefixes)
		if got := sortedSet(slices.Clone(c.list)); !slices.Equal(got, slices.Compact(want)) {
			t.Errorf("%s: sorted in another way", c.name)
		}
	}
}

const firehol = `#
# firehol_level1
#
# ipv4 hash:net ipset
#
# A firewall blacklist composed from IP lists
#
# Entries           : 2 unique IPs
#
192.0.2.0/24
198.51.100.7
`

// TestLargeAndHopelessSetFilesAreRefusedQuickly is about the order of growth and of memory; the clock is only logged.
func TestLargeAndHopelessSetFilesAreRefusedQuickly(t *testing.T) {
	const lines = 10_000_000
	for _, c := range []struct{ name, line, want string }{
		{"addresses", "192.0.2.1\n", "f is larger than 64 MiB"},
		{"short addresses", "1::\n", "f:2000001:1: more than 2000000 prefixes; split the file, or merge its prefixes"},
		{"garbage", "x\n", "f: and 980 more up to line 1000; the rest was not read"},
		{"comments", "#\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeSet(t, strings.Repeat(c.line, lines))
			begin := time.Now()
			_, err := ReadSetFile(path)
			t.Logf("%s for %d lines", time.Since(begin), lines)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			said := strings.Split(strings.ReplaceAll(fmt.Sprint(err), path, "f"), "\n")
			if last := said[len(said)-1]; len(said) > maxOfSet+1 || last != c.want {
				t.Errorf("%d lines, the last: %q, want %q", len(said), last, c.want)
			}
		})
	}
}

func TestReadSetFileRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                        "cannot read " + dir + ": is a directory",
		"/dev/zero":                "cannot read /dev/zero: not a regular file; pipes and devices cannot be read twice",
		filepath.Join(dir, "none"): "cannot read " + filepath.Join(dir, "none") + ": no such file or directory",
	} {
		if _, err := ReadSetFile(path); fmt.Sprint(err) != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

func TestWatchedFilesAreNoPartOfTheRevision(t *testing.T) {
	c, err := parse(`
sets:
  - {name: feed, prefixes: [203.0.113.0/24], files: [missing.netset, /abs/x], watch: true}
  - {name: fixed, files: [good.netset], watch: false}
  - {name: again, files: [missing.netset], watch: true}
`)
	if err != nil {
		t.Fatal(err)
	}
	c.Resolve("/etc/sluice")
	if got := fmt.Sprint(c.Watched(), c.Sets[0].Files, c.Sets[0].Prefixes, c.Sets[1].Watched, len(c.Files)); got !=
		"[/abs/x /etc/sluice/missing.netset] [missing.netset /abs/x] [203.0.113.0/24] [] 1" {
		t.Errorf("got %s", got)
	}
	// Its contents are not known: a rule with addresses of either family may match.
	_, err = parse(`
interfaces: [{name: eth0, role: uplink}]
sets: [{name: feed, prefixes: [203.0.113.0/24], files: [missing.netset], watch: true}]
policy: {ingress: {rules: [{name: r, from: [feed], to: ["2001:db8::/32"], action: drop}]}}
`)
	if err != nil {
		t.Error(err)
	}
}
