package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// setFiles are the set files that test configurations may name.
func setFiles(path string) ([]byte, error) {
	contents, ok := map[string]string{
		"good.netset":   "192.0.2.0/24\n",
		"bogons.netset": "192.0.2.0/24\n",
		"bad.netset": "\uFEFF# comment\r\n\n192.0.2.0/24 ; fine\r\n  192.0.2.1/24\n\t2001:db8::1 # fine\n::ffff:192.0.2.1\n" +
			"192.0.2.1 192.0.2.2\n192.0.2.1-192.0.2.9\nfe80::1%eth0",
	}[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(contents), nil
}

func parse(yaml string) (*Config, error) {
	return Parse(Source{Name: "edge.yaml", Bytes: []byte(yaml), ReadFile: setFiles})
}

// TestBadFiles holds every refusal against its exact text: the cases stand in testdata/bad.txt.
func TestBadFiles(t *testing.T) {
	contents, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		t.Fatal(err)
	}
	var renewed strings.Builder
	for i, section := range strings.Split("\n"+string(contents), "\n=== ")[1:] {
		title, rest, _ := strings.Cut(section, "\n")
		yaml, want, found := strings.Cut(rest, "----\n")
		if !found {
			yaml, want = strings.TrimSuffix(rest, "----"), ""
		}
		if !strings.HasSuffix(yaml, "\n") {
			t.Fatalf("case %d %q has no ---- line", i, title)
		}
		_, err := parse(yaml)
		var list Errors
		if !errors.As(err, &list) {
			t.Errorf("%s: got %v, want Errors", title, err)
			continue
		}
		for _, secret := range []string{"hunter2", "c2VjcmV0"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: an error prints a secret: %v", title, err)
			}
		}
		fmt.Fprintf(&renewed, "=== %s\n%s----\n%s\n", title, yaml, err)
		if !*update {
			t.Run(title, func(t *testing.T) {
				if diff := cmp.Diff(strings.TrimSpace(want), err.Error()); diff != "" {
					t.Errorf("errors (-want +got):\n%s", diff)
				}
			})
		}
	}
	if *update {
		if err := os.WriteFile("testdata/bad.txt", []byte(renewed.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
