package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCrashBetweenLedgerAndChange(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	before := machine(t)
	want := gateway()
	dir := t.TempDir()
	first := open(t, dir)
	ops := Diff(State{}, want)
	// After every step, which comes twice, the daemon dies: once with all done, once with claims written and nothing done.
	for i, op := range ops {
		for range 2 {
			if err := first.Apply(t.Context(), op); err != nil {
				t.Fatal(err)
			}
		}
		claims, _ := os.ReadFile(filepath.Join(dir, "host.json"))
		down(t, open(t, dir))
		same(t, "down after "+op.String(), before, machine(t))

		if err := os.WriteFile(filepath.Join(dir, "host.json"), claims, 0o600); err != nil {
			t.Fatal(err)
		}
		if len(claims) == 0 {
			os.Remove(filepath.Join(dir, "host.json"))
		}
		down(t, open(t, dir))
		same(t, "down with nothing but the claim of "+op.String(), before, machine(t))
		first = open(t, dir)
		for _, op := range ops[:i+1] {
			if err := first.Apply(t.Context(), op); err != nil {
				t.Fatal(err)
			}
		}
	}
	// From the claims alone apply goes on as if nothing had happened.
	claims, _ := os.ReadFile(filepath.Join(dir, "host.json"))
	down(t, open(t, dir))
	if err := os.WriteFile(filepath.Join(dir, "host.json"), claims, 0o600); err != nil {
		t.Fatal(err)
	}
	last := open(t, dir)
	apply(t, last, want)
	down(t, last)
	same(t, "down at last", before, machine(t))
}

func TestLedgerOfAnotherNamespaceOrBootIsVoid(t *testing.T) {
	dir := t.TempDir()
	inNamespace(t)
	twoVeths(t)
	apply(t, open(t, dir), gateway())
	inNamespace(t)
	twoVeths(t)
	ip(t, "addr add 198.18.0.2/30 dev eth0") // the new namespace's own
	before := machine(t)
	h := open(t, dir)
	if got := observe(t, h); !cmp.Equal(got, State{}) {
		t.Errorf("observed %+v", got)
	}
	apply(t, h, gateway())
	down(t, h)
	same(t, "the machine", before, machine(t))
}

func TestDamagedLedgerIsAnError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "host.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(nil, Options{StateDir: dir})
	if !errors.Is(err, ErrLedger) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

// The ledger does not wait for the disk: after a power cut it may be whole, empty, zeros, or a beginning.
func TestLedgerThatThePowerCutWasBeforeIsVoid(t *testing.T) {
	const now, before = "boot-b/1", "boot-a/1"
	whole := `{"namespace":"` + before + `","links":[{"name":"eth0","index":2,"up":true}]}`
	for name, c := range map[string]struct {
		contents string
		void     bool
	}{
		"whole":                 {whole, true},
		"empty":                 {"", true},
		"zeros":                 {strings.Repeat("\x00", 4096), true},
		"a beginning":           {whole[:len(whole)-9], true},
		"not as far as its id":  {whole[:18], false},
		"a beginning of now":    {strings.ReplaceAll(whole[:len(whole)-9], before, now), false},
		"somebody's edit":       {"{", false},
		"of another namespace":  {strings.ReplaceAll(whole, before, "boot-b/12"), true},
		"a beginning of such":   {strings.ReplaceAll(whole[:len(whole)-9], before, "boot-b/12"), true},
		"zeros behind a letter": {"{" + strings.Repeat("\x00", 4096), false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "host.json")
			if err := os.WriteFile(path, []byte(c.contents), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := loadLedger(path, now)
			switch {
			case c.void && (err != nil || !l.empty() || l.Namespace != now):
				t.Errorf("%+v (%v)", l, err)
			case !c.void && !errors.Is(err, ErrLedger):
				t.Errorf("%v", err)
			}
		})
	}
}
