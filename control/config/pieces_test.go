package config

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// finest cuts every list of rules, and every item by itself.
func finest() grain { return grain{least: 1, peers: 1, items: 1, bytes: 1} }

// fine makes pieces of a few items.
func fine() grain { return grain{least: 1, peers: 1, mask: 1, items: 3, bytes: 200} }

func source(text string) Source {
	return Source{Name: "edge.yaml", Bytes: []byte(text), ReadFile: setFiles}
}

func setsOf(src Source) *setReader {
	return &setReader{read: src.ReadFile, now: map[string]*setFile{}}
}

// cutAt reads in pieces and nothing else; nil where that is not certain.
func cutAt(g grain, text string) *Config {
	src := source(text)
	cfg, _ := parsePieces(src, g, new(Cache).known(src.Name), setsOf(src))
	return cfg
}

// agree wants both ways of reading to give the same Config with the same places, or the same errors.
func agree(t *testing.T, c *Cache, text string) {
	t.Helper()
	src := source(text)
	want, wrong := parseWhole(src, setsOf(src))
	got, err := c.Parse(src)
	if !reflect.DeepEqual(want, got) {
		t.Errorf("read in pieces, this is another Config (-whole +pieces):\n%s\n%s", cmp.Diff(want, got, comparer), text)
	}
	if diff := cmp.Diff(fmt.Sprint(wrong), fmt.Sprint(err)); diff != "" {
		t.Errorf("read in pieces, this gives other errors (-whole +pieces):\n%s\n%s", diff, text)
	}
}

// corpus is every configuration that the tests have, good and bad.
func corpus(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range files {
		contents, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(contents))
	}
	bad, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range strings.Split("\n"+string(bad), "\n=== ")[1:] {
		yaml, _, _ := strings.Cut(section, "----\n")
		out = append(out, yaml[strings.IndexByte(yaml, '\n')+1:])
	}
	return append(out, goodFiles()...)
}

// blockRules has lists of rules in every form that may be cut.
const blockRules = `interfaces: [{name: eth0, role: uplink}, {name: lan0, role: downstream}]
management: {accept: [{protocol: tcp, ports: [22]}]}
sockets: [{name: dns}]
sets:
  - {name: good, files: [good.netset]}
  - {name: six, prefixes: ["2001:db8::/32"]}
policy:
  ingress:
    default: drop
    rules:   # what comes in

      # the first
      - {name: a, from: [good], to: [web-1], action: drop}
      - name: b
        from:
        - 192.0.2.0/24
        - 198.51.100.0/24
# a comment at the margin
        protocol: tcp
        ports: [80,
          443]
        action: accept

      - {name: c, from: [six], action: drop, mode: shadow}
      -
        name: d
        interfaces: [eth0]
        protocol: udp
        ports: [53]
        action: bypass
        socket: dns
      - {name: "e", to: [self], protocol: icmp, icmp_types: [echo-request], action: limit, limit: {rate: 10kpps}}
      # the last
  egress:
    rules:
    - {name: a, interfaces: [lan0], action: accept}
    - name: >-
        folded

      action: accept
    - name: |2-
        b
       # not of the text
      action: drop
    default: accept
tunnels:
  - name: hub
    type: wireguard
    local: {address: 198.18.0.2, port: 51820}
    addresses: [10.200.0.1/24]
    health: {interval: 1s}
    wireguard: {private_key_file: /keys/hub}
    peers:    # of the hub

      # the first
      - name: a
        endpoints: ["198.51.100.7:51820"]
        public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=]
        probe: 10.200.0.2
        prefixes: [10.20.0.0/16,
          10.21.0.0/16]
      - {name: b, public_keys: [IBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=], prefixes: [10.22.0.0/16], keepalive: 25s}
# a comment at the margin
      -
        name: c
        public_keys:
        - MBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=
        metric: 100
  - name: ams1
    type: wireguard
    local: {address: 198.18.0.2, port: 51821}
    wireguard: {private_key_file: /keys/ams1}
    peers:
    - name: a
      endpoints: ["vpn.example.net:51820"]
      public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=]
      routes: false
workloads:
- name: web-1
  interface: web-1
  addresses: [10.0.1.10]
  ingress:
    rules:
    - {name: a, from: [good], action: accept}
    - {name: b, action: drop}
  egress: {rules: [
    {name: a, action: accept},
    ]}
`

// TestLongListsAreCut holds what is read in pieces: else all the other tests would compare nothing.
func TestLongListsAreCut(t *testing.T) {
	for _, text := range goodFiles() {
		skeleton, cuts := cutLists([]byte(text), finest())
		if want := strings.Count(text, "rules:") - strings.Count(text, "rules: [") + strings.Count(text, "peers:"); len(cuts) != want {
			t.Errorf("%d lists are cut, want %d:\n%s", len(cuts), want, text)
		}
		if strings.Count(string(skeleton), "\n") != strings.Count(text, "\n") {
			t.Errorf("the skeleton has other lines:\n%s", skeleton)
		}
		if cutAt(finest(), text) == nil {
			t.Errorf("not read in pieces:\n%s", text)
		}
	}
}

func goodFiles() []string {
	return []string{blockRules, strings.ReplaceAll(blockRules, "\n", "\r\n"), "\uFEFF" + blockRules, strings.TrimSuffix(blockRules, "\n"),
		strings.ReplaceAll(string(manyRules(10)), "block.netset", "good.netset")}
}

func TestFilesReadInPiecesAreTheSame(t *testing.T) {
	for _, text := range corpus(t) {
		for _, g := range []grain{finest(), fine(), coarse()} {
			agree(t, &Cache{grain: g}, text)
		}
	}
}

// TestMutatedFilesReadInPiecesAreTheSame takes lines out of good and bad files, doubles them, swaps, indents and quotes
// them; one Cache sees all of it, one after the other.
func TestMutatedFilesReadInPiecesAreTheSame(t *testing.T) {
	all := corpus(t)
	rng := rand.New(rand.NewPCG(1, 2))
	cut := 0
	for range 100 {
		text := all[rng.IntN(len(all))]
		if rng.IntN(4) > 0 {
			text = goodFiles()[rng.IntN(len(goodFiles()))]
		}
		c := &Cache{grain: []grain{finest(), fine()}[rng.IntN(2)]}
		agree(t, c, text)
		for range 3 {
			text = mutate(rng, text)
			agree(t, c, text)
			if cutAt(c.grain, text) != nil {
				cut++
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d mutated files were read in pieces", cut)
	if cut < 25 {
		t.Errorf("only %d mutated files were read in pieces: this shows nothing", cut)
	}
}

// TestAFlagBehindAnExclamationMarkIsSeenInPieces: to the YAML library [! ack] is [ack], the opposite of what is meant.
func TestAFlagBehindAnExclamationMarkIsSeenInPieces(t *testing.T) {
	for _, flags := range []string{"[syn, ! ack]", "[! ack, syn]", "[syn, !ack]", "\n        - syn\n        - ! ack", `[syn, "!ack"]`, `[syn, ! "ack"]`} {
		text := strings.Replace(blockRules, "name: b\n", "name: b\n        tcp_flags: "+flags+"\n", 1)
		if text == blockRules {
			t.Fatal("there is no rule b")
		}
		for _, g := range []grain{finest(), fine()} {
			agree(t, &Cache{grain: g}, text)
		}
	}
}

func mutate(rng *rand.Rand, text string) string {
	lines := strings.SplitAfter(text, "\n")
	i, j := rng.IntN(len(lines)), rng.IntN(len(lines))
	words := []string{"'", `"`, "[", "]", "{", "}", "# ", "- ", "|\n", ">\n", "\t", "  ", " ", "rules:\n", "peers:\n", "---\n", "...\n", "&a ", "*a", "!ack ", "! ack ",
		"<<: *a\n", "? ", ": ", "\r", "\u2028", "\uFEFF", "%YAML 1.1\n", "\n", "- |2\n", "fragments: drop\n"}
	switch rng.IntN(8) {
	case 0:
		lines[i] = ""
	case 1:
		lines[i] += lines[i]
	case 2:
		lines[i], lines[j] = lines[j], lines[i]
	case 3:
		lines[i] = " " + lines[i]
	case 4:
		lines[i] = strings.TrimPrefix(lines[i], " ")
	case 5:
		lines[i] += lines[j]
	case 6:
		lines[i] = strings.Replace(lines[i], "name: a", "name: z", 1)
	default:
		at := rng.IntN(len(lines[i]) + 1)
		lines[i] = lines[i][:at] + words[rng.IntN(len(words))] + lines[i][at:]
	}
	return strings.ToValidUTF8(strings.Join(lines, ""), "")
}

func FuzzPieces(f *testing.F) {
	for _, text := range corpus(f) {
		f.Add(text, strings.Replace(text, "name: a", "name: z", 1), uint8(0))
		f.Add(text, "\n"+text, uint8(1))
	}
	f.Fuzz(func(t *testing.T, text, then string, mask uint8) {
		c := &Cache{grain: grain{least: 1, peers: 1, mask: uint32(mask), items: 1 + int(mask>>4), bytes: 300}}
		agree(t, c, text)
		agree(t, c, then)
	})
}

// TestPeersThatWereReadBeforeAreNotReadAgain counts what a change of one peer among a thousand has read.
func TestPeersThatWereReadBeforeAreNotReadAgain(t *testing.T) {
	var c Cache
	if _, err := c.Parse(source(manyPeers(1000, 0))); err != nil {
		t.Fatal(err)
	}
	before := c.last.items
	if len(before) < 8 {
		t.Fatalf("a thousand peers are %d pieces: nothing can be spared", len(before))
	}
	agree(t, &c, manyPeers(1000, 25))
	fresh := 0
	for print := range c.last.items {
		if _, ok := before[print]; !ok {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d of %d pieces were read for one peer that changed", fresh, len(c.last.items))
	}
	agree(t, &c, "# a line more\n"+manyPeers(1000, 25))
	agree(t, &c, manyPeers(1001, 3))
}

// manyPeers is a hub; the metric of its peer 500 is given.
func manyPeers(n, metric int) string {
	var b strings.Builder
	b.WriteString("tunnels:\n  - name: hub\n    type: wireguard\n    local: {address: 198.18.0.2, port: 51820}\n    wireguard: {private_key_file: /keys/hub}\n    peers:\n")
	for i := range n {
		key := sha256.Sum256([]byte{byte(i >> 8), byte(i)})
		fmt.Fprintf(&b, "      - name: peer-%d\n        endpoints: [\"198.19.%d.%d:51820\"]\n        public_keys: [%s]\n        prefixes: [10.%d.%d.0/24]\n",
			i, i>>8, i&255, base64.StdEncoding.EncodeToString(key[:]), i>>8, i&255)
		if i == 500 {
			fmt.Fprintf(&b, "        metric: %d\n", 1+metric)
		}
	}
	return b.String()
}
