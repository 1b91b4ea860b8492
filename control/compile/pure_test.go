package compile

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/control/config"
	"sluice/control/host"
)

// everything is a fact sheet that fits all examples.
func everything() Facts {
	f := facts("eth0 198.18.0.2/30 2001:db8::2/64", "eth1 10.0.2.1/24", "eth2", "eth3", "lo", "web-1", "web-2")
	f.PublicKeys = map[string]string{"/var/lib/sluice/keys/fra1.key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
	return f
}

// TestCompileIsAFunctionOfItsArguments: the same inputs give the same Desired, and stay as they are, so that the engine
// may compare, keep and compile again.
func TestCompileIsAFunctionOfItsArguments(t *testing.T) {
	for _, name := range []string{"minimal.yaml", "edge-default-drop.yaml", "reference.yaml"} {
		t.Run(name, func(t *testing.T) {
			cfg, untouched := load(t, name), load(t, name)
			rt := Runtime{RuleIDs: map[string]uint32{"ingress/web": 77, "gone/rule": 3}, Retired: map[uint32]bool{3: true, 4: true}}
			f := everything()
			first := compile(t, cfg, rt, f)
			for range 10 { // maps come in a new order every time
				if diff := cmp.Diff(first, compile(t, cfg, rt, f), comparers); diff != "" {
					t.Fatalf("a second compilation differs:\n%s", diff)
				}
			}
			if diff := cmp.Diff(untouched, cfg, comparers); diff != "" {
				t.Errorf("the configuration was changed:\n%s", diff)
			}
			if diff := cmp.Diff(everything(), f, comparers); diff != "" {
				t.Errorf("the facts were changed:\n%s", diff)
			}
			want := Runtime{RuleIDs: map[string]uint32{"ingress/web": 77, "gone/rule": 3}, Retired: map[uint32]bool{3: true, 4: true}}
			if diff := cmp.Diff(want, rt); diff != "" {
				t.Errorf("the runtime was changed:\n%s", diff)
			}
			again := compile(t, cfg, Runtime{RuleIDs: first.RuleIDs}, f)
			if diff := cmp.Diff(first, again, comparers); diff != "" {
				t.Errorf("its own ids as input change the outcome:\n%s", diff)
			}
		})
	}
}

// FuzzCompile compiles whatever parses, on a machine that has every interface of the file: it fails with config.Errors
// or not at all, and twice the same.
func FuzzCompile(f *testing.F) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(uplink + tunnel("t", "strict: true")))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := config.Parse(config.Source{Name: "f.yaml", Bytes: data, ReadFile: func(string) ([]byte, error) { return []byte("192.0.2.0/24"), nil }})
		if err != nil {
			return
		}
		var there Facts
		for _, i := range cfg.Interfaces {
			there.Host.Links = append(there.Host.Links, host.LinkFact{Name: i.Name, MTU: 1500, Addresses: i.Addresses})
		}
		for i, w := range cfg.Workloads {
			if i%2 == 0 {
				there.Host.Links = append(there.Host.Links, host.LinkFact{Name: w.Interface, MTU: 1500})
			}
		}
		a, err := Compile(cfg, Runtime{}, there)
		b, again := Compile(cfg, Runtime{}, there)
		var list config.Errors
		if (err == nil) != (a != nil) || err != nil && !errors.As(err, &list) || (err == nil) != (again == nil) {
			t.Fatalf("error %v, then %v; result %v", err, again, a)
		}
		for _, e := range list {
			if e.Path == "" || e.Msg == "" {
				t.Errorf("an error without a path or a text: %+v", e)
			}
		}
		if diff := cmp.Diff(a, b, comparers, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("twice the same gives:\n%s", diff)
		}
		if _, err := json.Marshal(a); err != nil {
			t.Errorf("the wanted state has no JSON: %v", err)
		}
	})
}
