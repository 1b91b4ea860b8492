package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/control/api"
	"sluice/control/engine"
	"sluice/control/node/slots"
)

// asked is the daemon as `sluice node gate` asks it.
type asked struct{ *api.Client }

func (a asked) Status(ctx context.Context) (api.Status, error) {
	return api.Show[api.Status](ctx, a.Client, "status")
}

func (a asked) Neighbors(ctx context.Context) ([]api.Neighbor, error) {
	return api.Show[[]api.Neighbor](ctx, a.Client, "bgp")
}

// image makes this machine a node image in the eyes of package slots: 1.0 runs.
func (s *site) image(dir string) (o slots.Options, esp string) {
	s.t.Helper()
	o = slots.Options{ESP: filepath.Join(dir, "efi"), EFIVars: filepath.Join(dir, "efivars"), OSRelease: filepath.Join(dir, "os-release"), Notes: filepath.Join(dir, "image")}
	esp = filepath.Join(o.ESP, "EFI", "Linux")
	if err := errors.Join(os.MkdirAll(esp, 0o700), os.Mkdir(o.EFIVars, 0o700), os.WriteFile(filepath.Join(esp, "sluice_1.0.efi"), []byte("an image"), 0o600)); err != nil {
		s.t.Fatal(err)
	}
	return o, esp
}

// runs opens the machine as one that runs a version.
func (s *site) runs(o slots.Options, version string) *slots.Machine {
	s.t.Helper()
	if err := os.WriteFile(o.OSRelease, []byte("IMAGE_ID=sluice\nIMAGE_VERSION="+version+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	m, err := slots.Open(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// The real daemon and BIRD: what was established before an update is missed by its gate, for as long as it is not.
func TestTheHealthGateMissesTheNeighborsOfBefore(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	o, esp := s.image(t.TempDir())
	if err := s.runs(o, "1.0").Record(t.Context(), asked{s.api}); err != nil {
		t.Fatal(err)
	}
	// The update's first try.
	counted := "\x07\x00\x00\x00\\\x00"
	if err := errors.Join(os.WriteFile(filepath.Join(esp, "sluice_1.1+2-1.efi"), []byte("an image"), 0o600),
		os.WriteFile(filepath.Join(o.EFIVars, "LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"), []byte(counted), 0o600)); err != nil {
		t.Fatal(err)
	}
	m, log := s.runs(o, "1.1"), slog.New(slog.DiscardHandler)
	if err := m.Gate(t.Context(), asked{s.api}, patience, log); err != nil {
		t.Errorf("all is as before: %v", err)
	}
	s.bird.do("disable edge6")
	eventually(t, func() error {
		err := m.Gate(t.Context(), asked{s.api}, time.Millisecond, log)
		if !errors.Is(err, slots.ErrUnhealthy) || !strings.Contains(err.Error(), "tor-v6 was up and is") || strings.Contains(err.Error(), "tor was up") {
			return fmt.Errorf("without a neighbor: %v", err)
		}
		return nil
	})
	s.bird.do("enable edge6")
	if err := m.Gate(t.Context(), asked{s.api}, 2*patience, log); err != nil {
		t.Errorf("the neighbor is back: %v", err)
	}
	s.terminate()
	if err := m.Gate(t.Context(), asked{s.api}, patience/10, log); !errors.Is(err, slots.ErrUnhealthy) || !strings.Contains(err.Error(), "could not reach the daemon") {
		t.Errorf("without a daemon: %v", err)
	}
}

// tomorrow builds a version that keeps its state in the next format, and knows a key of the configuration no more.
func tomorrow(t *testing.T) string {
	t.Helper()
	instead := func(a, b string) func(string) string {
		return func(text string) string { return strings.Replace(text, a, b, 1) }
	}
	return buildOther(t, map[string]func(string) string{
		"control/disk/format.go": instead("\nconst Format = 1\n", "\nconst Format = 2\n"),
		"control/config/raw.go":  instead(`key:"max_entries"`, `key:"most_flows"`),
	})
}

func TestWhatAnUpdateMeets(t *testing.T) {
	t.Parallel()
	next := tomorrow(t)
	t.Run("another format", func(t *testing.T) { t.Parallel(); versionsTakeTurns(t, next) })
	t.Run("a revision that it does not parse", func(t *testing.T) { t.Parallel(); refusesTheRevision(t, next) })
}

// An update that keeps its state in another format, and the roll-back behind it: each version goes on from its own, and writes nothing
// into what the other has. The update again begins with what was in use last, and keeps what it had.
func versionsTakeTurns(t *testing.T, next string) {
	t.Helper()
	s := newGateway(t)
	newer := filepath.Join(s.Gateway.StateDir, "format-2")
	ban := func(address, why string) {
		t.Helper()
		if r := s.sluice("ban", address, "--why", why); r.code != 0 {
			t.Fatalf("ban: %+v", r)
		}
	}
	bans := func(want ...string) {
		t.Helper()
		r := s.sluice("show", "bans")
		for _, why := range []string{"before the update", "under the new one", "back again"} {
			if strings.Contains(r.out, why) != slices.Contains(want, why) {
				t.Errorf("bans are to be %q: %+v", want, r)
			}
		}
	}
	ban("192.0.2.66", "before the update")
	s.terminate()

	s.startNext(next)
	s.established()
	bans("before the update")
	ban("192.0.2.67", "under the new one")
	s.edit(webOpen, webClosed)
	s.apply()
	s.wantHistory("1 confirmed, 2 confirmed")
	s.terminate()
	written := files(t, newer)

	s.start()
	s.established()
	if c := s.condition(engine.ConditionStateFormat); c == nil || c.Status != engine.False || !strings.Contains(c.Message, "format-2, which is left alone") {
		t.Errorf("status does not tell: %+v", s.status().Engine.Conditions)
	}
	bans("before the update")
	s.wantHistory("1 confirmed")
	s.mustBe(s.open)
	ban("192.0.2.68", "back again")
	s.terminate()
	if after := files(t, newer); !maps.Equal(written, after) {
		t.Errorf("what the newer version wrote was %q and is %q", written, after)
	}

	s.startNext(next)
	s.established()
	if c := s.condition(engine.ConditionStateFormat); c != nil {
		t.Errorf("in its own format: %+v", c)
	}
	bans("before the update", "back again")
	s.wantHistory("1 confirmed")
	s.terminate()
	kept := map[string]string{}
	for name, text := range written {
		kept[strings.Replace(name, newer, newer+".before", 1)] = text
	}
	if after := files(t, newer+".before"); !maps.Equal(kept, after) {
		t.Errorf("of its own it kept %q, and had %q", after, kept)
	}
}

// An update that does not parse the revision which is live any more: it forwards as before, says which line, prints what is to be mended,
// and takes it mended.
func refusesTheRevision(t *testing.T, next string) {
	t.Helper()
	s := newSite(t)
	good := s.file
	s.edit("\nbgp:\n", "\nconntrack: {max_entries: 4096}\n\nbgp:\n")
	s.start()
	s.established()
	s.terminate()
	if err := s.Gateway.StartDaemonOf(next); err != nil {
		t.Fatal(err)
	}
	line := 1 + strings.Count(s.file[:strings.Index(s.file, "max_entries")], "\n")
	want := fmt.Sprintf("%s:%d:13: conntrack.max_entries: unknown key `max_entries`", s.Gateway.File, line)
	eventually(t, func() error {
		status, err := api.Show[api.Status](t.Context(), s.api, "status")
		if err != nil {
			return err
		}
		for _, c := range status.Engine.Conditions {
			if c.Type == engine.ConditionDegraded && c.Status == engine.True && strings.Contains(c.Message, want) && strings.Contains(c.Message, "`sluice show config 1`") {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", status.Engine.Conditions)
	})
	s.mustBe(s.open)
	if shown := s.sluice("show", "config", "1"); shown.code != 0 || !strings.Contains(shown.out, "max_entries: 4096") {
		t.Errorf("what is to be mended: %+v", shown)
	}
	s.write(good)
	s.apply()
	s.mustBe(s.open)
	s.established()
	if c := s.condition(engine.ConditionDegraded); c == nil || c.Status != engine.False {
		t.Errorf("behind the apply: %+v", c)
	}
}

// files are all files below a directory, with their contents.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
