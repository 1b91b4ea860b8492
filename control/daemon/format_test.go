package daemon

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/control/ban"
	"sluice/control/engine"
)

// newerState is what a version of tomorrow wrote, by file; none of it may be opened by this one.
var newerState = map[string]string{
	"revisions/2/meta.json": `{"schema": 99, "number": 2, "status": {"is": "another type"}}`,
	"rule-ids.json":         `{"schema": 99}`,
	"bans.json":             `{"schema": 99, "bans": "elsewhere"}`,
	"workloads.json":        `{"schema": 99}`,
	"tunnels.json":          `{"schema": 99}`,
	"drain.json":            "no JSON at all",
	"flowspec.json":         "\x00",
	"only-tomorrow.db":      "x",
}

func writeTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		out[name] = string(data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// After a roll-back to this version: it goes on from its own state, tells what it leaves alone, and leaves it alone.
func TestStateOfANewerVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	newer := filepath.Join(dir, "format-2")
	writeTree(t, newer, newerState)
	writeTree(t, dir, map[string]string{"format": "2\n", "bans.json": `{"schema": 1, "bans": [{"target": "192.0.2.7/32", "since": "2026-01-01T00:00:00Z"}]}`})
	file := filepath.Join(dir, "edge.yaml")
	writeTree(t, dir, map[string]string{"edge.yaml": site})
	d, err := build(t.Context(), Options{File: file, StateDir: dir, BPFDir: "/sys/fs/bpf/sluice-none", Socket: filepath.Join(dir, "s"), Version: "v1", Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	d.tellNewerState()
	// What each reads at a start, and writes.
	d.loadAnnouncements()
	d.keepFilters()
	if err := errors.Join(d.workloads.Load(), d.tunnels.Load()); err != nil {
		t.Error(err)
	}
	told := slices.IndexFunc(d.engine.Status().Conditions, func(c engine.Condition) bool {
		return c.Type == engine.ConditionStateFormat && c.Status == engine.False && strings.Contains(c.Message, "format-2")
	})
	if told < 0 {
		t.Errorf("status does not tell: %+v", d.engine.Status().Conditions)
	}
	if unwritten, damaged := d.faults.List(); len(unwritten)+len(damaged) > 0 {
		t.Errorf("%q %q", unwritten, damaged)
	}
	if got := readTree(t, newer); !maps.Equal(got, newerState) {
		t.Errorf("what the newer version wrote is now %q", got)
	}
}

// The same files where a version of today looks for its own: it says so instead of guessing. That is what formats are for.
func TestANewerSchemaInThePlaceOfTodaysIsRefused(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"revisions/2/meta.json": newerState["revisions/2/meta.json"], "bans.json": newerState["bans.json"]})
	if _, err := engine.OpenStore(dir); !errors.Is(err, engine.ErrNewerSchema) {
		t.Error(err)
	}
	if err := ban.New(ban.Options{Path: filepath.Join(dir, "bans.json"), Log: discard}).Load(); err == nil {
		t.Error("bans of another schema are believed")
	}
}
