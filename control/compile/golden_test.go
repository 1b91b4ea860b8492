package compile

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/config"
	"sluice/control/host"
)

var update = flag.Bool("update", false, "write the golden files anew")

// load parses one of configs/.
func load(t *testing.T, name string) *config.Config {
	t.Helper()
	src, err := config.LoadFile(filepath.Join("../../configs", name))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// parse parses YAML; every set file holds 192.0.2.0/24.
func parse(t testing.TB, yaml string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(config.Source{
		Name: "edge.yaml", Bytes: []byte(yaml),
		ReadFile: func(string) ([]byte, error) { return []byte("192.0.2.0/24\n"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// facts makes a machine out of one line per link: "name address...". An address "here" makes both ends of a veth be in
// this namespace.
func facts(links ...string) Facts {
	var f Facts
	for n, line := range links {
		words := strings.Fields(line)
		link := host.LinkFact{Name: words[0], Index: n + 1, MTU: 1500, Up: true, Carrier: true}
		for _, w := range words[1:] {
			if w == "here" {
				link.PeerHere = true
				continue
			}
			link.Addresses = append(link.Addresses, netip.MustParsePrefix(w))
		}
		f.Host.Links = append(f.Host.Links, link)
	}
	return f
}

func compile(t testing.TB, cfg *config.Config, rt Runtime, f Facts) *Desired {
	t.Helper()
	d, err := Compile(cfg, rt, f)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// refusal returns the errors of a compilation that must fail.
func refusal(t *testing.T, cfg *config.Config, f Facts) config.Errors {
	t.Helper()
	d, err := Compile(cfg, Runtime{}, f)
	var list config.Errors
	if !errors.As(err, &list) || d != nil {
		t.Fatalf("got %v and error %v, want config.Errors alone", d, err)
	}
	return list
}

// TestExamplesBecomeThisMachine holds the whole wanted state of every example against testdata/, line by line.
func TestExamplesBecomeThisMachine(t *testing.T) {
	withKey := facts("eth0 198.18.0.2/30 2001:db8::2/64 fe80::5054:ff:fe00:1/64", "lo 127.0.0.1/8 ::1/128", "web-1", "web-2 fe80::1/64", "docker0 172.17.0.1/16")
	withKey.PublicKeys = map[string]string{"/var/lib/sluice/keys/fra1.key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
	for _, example := range []struct {
		file  string
		facts Facts
	}{
		{"minimal.yaml", facts("eth0 198.18.0.2/30", "lo 127.0.0.1/8")},
		{"edge-default-drop.yaml", withKey},
		{"lab-gateway.yaml", facts("eth0", "lo 127.0.0.1/8", "web-1", "web-2")},
		{"lab-peer.yaml", facts("eth0", "lo 127.0.0.1/8")},
		{"two-tunnels.yaml", facts("eth0", "eth1", "lo 127.0.0.1/8")},
		{"node-image.yaml", facts("enp0s16", "lo 127.0.0.1/8")},
		{"reference.yaml", facts("eth0", "eth1", "eth2 10.0.9.2/24", "eth3", "lo 127.0.0.1/8", "web-1")},
	} {
		t.Run(example.file, func(t *testing.T) {
			got := text(compile(t, load(t, example.file), Runtime{}, example.facts))
			path := filepath.Join("testdata", strings.TrimSuffix(example.file, ".yaml")+".golden.txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// TestEveryExampleHasAGolden makes sure that a new example is not forgotten here.
func TestEveryExampleHasAGolden(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %d examples, want at least 3 (%v)", len(files), err)
	}
	for _, f := range files {
		golden := filepath.Join("testdata", strings.TrimSuffix(filepath.Base(f), ".yaml")+".golden.txt")
		if _, err := os.Stat(golden); err != nil {
			t.Errorf("%s: add it to TestExamplesBecomeThisMachine: %v", filepath.Base(f), err)
		}
	}
}
