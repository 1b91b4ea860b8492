package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// spots is a file in which every «right|wrong» is a place that can be broken without touching another. The error must
// stand exactly where the wrong text begins.
const spots = `node: {name: «edge-1|edge 1»}
interfaces:
  - name: eth0
    role: «uplink|uplnk»
    mtu: «1500|15»
    addresses: [198.18.0.2/30, «"2001:db8::2/64"|"2001:db8::2/640"»]
    xdp: {mode: «auto|off», fail: «open|ajar»}
  - {name: eth1, role: downstream, «mtu|mtuu»: 1500}
routes:
  - {prefix: «10.0.0.0/8|10.0.0.1/8», via: [198.18.0.1, «198.18.0.5|198.18.0.500»]}
sysctls: [{key: «net.ipv4.tcp_syncookies|kernel.panic», value: 1}]
management:
  accept: [{protocol: tcp, ports: [«22|0»], from: [198.18.0.0/24]}]
forward: [«{from: tunnel, to: downstream}|{from: uplink, to: uplink}»]
sets:
  - {name: bogons, prefixes: [192.0.2.0/24, «198.51.100.0/24|198.51.100.0/42»], «files: [good.netset]|file: good.netset»}
  - {name: «resolvers|bogons», prefixes: [198.18.0.53]}
policy:
  ingress:
    default: «drop|deny»
    rules:
      - {name: a, from: [bogons, «self|myself»], action: «drop|limit»}
      - name: b
        protocol: tcp
        ports:
          - 80
          - «8000-8999|9000-80»
        action: accept
      - {name: «c|b», action: drop, mode: «shadow|shade»}
workloads:
  - {name: web-1, interface: web-1, addresses: [10.0.1.10/32, «"fd00:1::10/128"|"fd00:1::10/64"»]}
  - {name: web-2, interface: «web-2|web-1», addresses: [«10.0.1.11|10.0.1.10»]}
conntrack: {max_entries: «524288|5»}
bgp:
  asn: «65010|0»
  router_id: «198.18.0.2|"2001:db8::1"»
  neighbors:
    - {name: tor-a, address: «198.18.0.1|tor-a», asn: 65000, hold_time: «90s|90»}
    - {name: tor-b, address: 198.18.0.6, asn: 65000, «password_file: /etc/tor-b.key|password: secret»}
  learn: {accept: [«{prefix: 0.0.0.0/0, le: 24}|{prefix: 10.0.0.0/8, le: 4}»]}
tunnels:
  - name: fra1
    type: wireguard
    local: {address: 198.18.0.2, port: «51820|519200»}
    wireguard: {private_key_file: «/k|k»}
    peers:
      - name: fra1-a
        endpoints: [«"198.51.100.7:51820"|"10.20.0.1"»]
        public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=]
        prefixes: [10.20.0.0/16]
      - name: fra1-b
        public_keys: [«EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLjA=|EBES»]
        prefixes: [«10.21.0.0/16|10.20.1.0/24»]
telemetry: {metrics: «127.0.0.1:9750|"*:9750"»}
`

// breakSpots breaks the spots that choose picks, and tells where.
func breakSpots(choose func() bool) (text string, broken []string) {
	var out strings.Builder
	rest := spots
	for {
		before, after, more := strings.Cut(rest, "«")
		out.WriteString(before)
		if !more {
			return out.String(), broken
		}
		spot, after, _ := strings.Cut(after, "»")
		right, wrong, _ := strings.Cut(spot, "|")
		if choose() {
			sofar := out.String()
			line := sofar[strings.LastIndex(sofar, "\n")+1:]
			broken = append(broken, fmt.Sprintf("edge.yaml:%d:%d", strings.Count(sofar, "\n")+1, len([]rune(line))+1))
			right = wrong
		}
		out.WriteString(right)
		rest = after
	}
}

func TestEveryBrokenSpotIsReportedAtItsPlace(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 500 {
		text, broken := breakSpots(func() bool { return round == 0 || r.IntN(4) == 0 })
		_, err := parse(text)
		var list Errors
		if errors.As(err, &list) != (len(broken) > 0) {
			t.Fatalf("broken at %v: %v", broken, err)
		}
		var got []string
		for _, e := range list {
			got = append(got, e.Pos.String())
		}
		if diff := cmp.Diff(broken, slices.Compact(got)); diff != "" {
			t.Fatalf("places (-broken +reported):\n%s\n%v\n%s", diff, err, text)
		}
	}
}

func TestColumnsCountCharacters(t *testing.T) {
	_, err := parse(`node: {name: "ä", state_dir: x}`)
	want := `edge.yaml:1:14: node.name: "ä" is not a name; use letters, digits, dot, underscore and hyphen, and do not begin with dot or hyphen
edge.yaml:1:30: node.state_dir: not an absolute path; write the whole path of the file, beginning with /`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestErrorsAreBoundedPerFile(t *testing.T) {
	read := func(string) ([]byte, error) { return []byte(strings.Repeat("x\n", 20_000)), nil }
	text := "sets:\n- {name: s, files: [a.netset]}\nroutes:\n" + strings.Repeat("- 1\n", 150)
	_, err := Parse(Source{Name: "edge.yaml", Bytes: []byte(text), ReadFile: read})
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 122 || lines[100] != "edge.yaml: and 50 more" || lines[121] != "a.netset: and 980 more up to line 1000; the rest was not read" {
		t.Errorf("got %d lines, %q and %q", len(lines), lines[100], lines[len(lines)-1])
	}
	if lines[99] != "edge.yaml:103:3: routes[99]: expected a mapping, found a whole number" {
		t.Errorf("the hundredth line is %q", lines[99])
	}
}

func TestLongValuesAreCut(t *testing.T) {
	_, err := parse("node: {name: !!str x, " + strings.Repeat("k", 1000) + ": 1}\ninterfaces: [{name: eth0, role: " + strings.Repeat("ä", 100_000) + "}]")
	if err == nil || len(err.Error()) > 2000 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

func TestLimitsOfSize(t *testing.T) {
	padding := strings.Repeat("#", maxFile)
	_, err := parse(padding + "\nnode: {}")
	if want := "edge.yaml: the file is larger than 16 MiB; put long lists of prefixes into set files"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	large := make([]byte, maxSetFile+1)
	_, err = Parse(Source{Name: "edge.yaml", Bytes: []byte("sets: [{name: s, files: [x]}]"),
		ReadFile: func(string) ([]byte, error) { return large, nil }})
	if want := "edge.yaml:1:26: sets[0].files[0]: x is larger than 64 MiB"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = Parse(Source{Name: "edge.yaml", Bytes: []byte("sets: [{name: s, files: [x]}]")})
	if want := "edge.yaml:1:26: sets[0].files[0]: cannot read x: set files are not at hand here"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestBytesThatAreNoText(t *testing.T) {
	for text, want := range map[string]string{
		"node: {}\n  \xff":      "edge.yaml:2:3: the file is not UTF-8",
		"node: {name: \x00}":    "edge.yaml: not YAML: control characters are not allowed",
		"n: *hunter2":           "edge.yaml: anchors and aliases are not supported; put a value that begins with * in quotes",
		"node: {name: a}\r\n\t": "edge.yaml:2:1: a tab indents this line; indent with spaces",
	} {
		got := ""
		if _, err := parse(text); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestLoadFileReadsBesideTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "edge.yaml")
	write := func(name, contents string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(contents), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.netset", "192.0.2.0/24\n2001:db8::/32\n")
	write("b.netset", "198.51.100.7\n")
	write("edge.yaml", "sets: [{name: a, prefixes: [203.0.113.0/24], files: [a.netset, "+filepath.Join(dir, "b.netset")+"]}, {name: b, files: [./a.netset, gone.netset]}]")
	_, err := Parse(load(t, file))
	want := regexp.MustCompile(`^.*edge.yaml:1:\d+: sets\[1\]\.files\[1\]: cannot read /.*/gone.netset: no such file or directory; paths are relative to the directory of this file$`)
	if err == nil || !want.MatchString(err.Error()) {
		t.Errorf("got %v", err)
	}
	write("gone.netset", "")
	c, err := Parse(load(t, file))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Sets[0].Prefixes, c.Sets[1].Prefixes, len(c.Files)); got != "[203.0.113.0/24 192.0.2.0/24 2001:db8::/32 198.51.100.7/32] [192.0.2.0/24 2001:db8::/32] 4" {
		t.Errorf("got %s", got)
	}
	if _, err := LoadFile(filepath.Join(dir, "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}

func TestAPipeIsRefusedAndNeverWaitedFor(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if src, err := LoadFile(pipe); err == nil || !strings.Contains(err.Error(), "not a regular file") || src.Name != pipe {
		t.Errorf("as the configuration: %q, %v", src.Name, err)
	}
	file := filepath.Join(dir, "edge.yaml")
	for set, want := range map[string]string{"pipe": "pipe: not a regular file", "/dev/zero": "/dev/zero: not a regular file", dir: "is a directory"} {
		if err := os.WriteFile(file, []byte("sets: [{name: a, files: ["+set+"]}]"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(load(t, file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s as a set file: %v", set, err)
		}
	}
}

// TestLargeFilesStayCheap is about the order of growth: a quadratic check would take minutes here.
func TestLargeFilesStayCheap(t *testing.T) {
	var text strings.Builder
	text.WriteString("interfaces: [{name: eth0, role: uplink}]\npolicy:\n  ingress:\n    rules:\n")
	for i := range 20_000 {
		fmt.Fprintf(&text, "    - {name: r%d, from: [w%d], action: drop}\n", i, i%5000)
	}
	text.WriteString("workloads:\n")
	for i := range 5000 {
		fmt.Fprintf(&text, "- {name: w%d, interface: w%d, addresses: [10.0.%d.%d]}\n", i, i, i/200, i%200+1)
	}
	begin := time.Now()
	c, err := parse(text.String())
	if err != nil || len(c.Policy.Ingress.Rules) != 20_000 {
		t.Fatal(err)
	}
	t.Logf("20000 rules, 5000 workloads: %s", time.Since(begin))
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		contents, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(contents))
	}
	all, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, section := range strings.Split(string(all), "\n=== ") {
		yaml, _, _ := strings.Cut(section, "----\n")
		f.Add(yaml[strings.IndexByte(yaml, '\n')+1:])
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse(text)
		var list Errors
		if (c == nil) == (err == nil) || err != nil && (!errors.As(err, &list) || len(list) == 0) {
			t.Fatalf("neither a Config nor Errors: %v, %v", c, err)
		}
		again, err2 := parse(text)
		if diff := cmp.Diff(c, again, comparer); diff != "" {
			t.Errorf("two Configs of the same bytes:\n%s", diff)
		}
		if fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Errorf("two answers to the same bytes:\n%v\n%v", err, err2)
		}
		for _, e := range list {
			if e.Msg == "" || strings.ContainsFunc(e.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q is no line of text", e.Error())
			}
		}
	})
}
