package netns

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/api"
	"sluice/control/node/source"
)

// booting is a gateway that boots as the node image does, from a credential.
type booting struct {
	*site
	dir    string // of this boot's configuration
	script string
}

func newBooting(t *testing.T) *booting {
	t.Helper()
	b := &booting{site: newBareSite(t)}
	b.dir, b.script = filepath.Join(b.Dir, "boot"), filepath.Join(b.Dir, "unattended")
	text := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\" --maintenance -c %s\n", binary(), filepath.Join(b.dir, source.FileName))
	if err := os.WriteFile(b.script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return b
}

// verb is one that a unit of the image runs.
func (b *booting) verb(into any, env string, words ...string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), binary(), append([]string{"node"}, words...)...)
	cmd.Env = append(os.Environ(), env)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%q: %v\n%s", words, err, said.String())
	}
	if err := json.Unmarshal(out, into); err != nil {
		b.t.Fatalf("%q: %v\n%s", words, err, out)
	}
}

// boot finds text, starts the daemon, and decides.
func (b *booting) boot(text string) api.Boot {
	b.t.Helper()
	credentials := filepath.Join(b.Dir, "credentials")
	if err := os.MkdirAll(credentials, 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(credentials, source.Credential), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	var r source.Record
	b.verb(&r, "CREDENTIALS_DIRECTORY="+credentials, "source", "--dir", b.dir, "--state-dir", b.Gateway.StateDir)
	if r.Source != source.FromCredential {
		b.t.Fatalf("found %+v", r)
	}
	if err := b.Gateway.StartDaemonOf(b.script); err != nil {
		b.t.Fatal(err)
	}
	var decided api.Boot
	b.verb(&decided, "SLUICE_LOG_LEVEL=warn", "decide", "--dir", b.dir, "--state-dir", b.Gateway.StateDir, "--socket", b.Gateway.Socket)
	if shown := b.status().Boot; shown == nil || shown.Outcome != decided.Outcome || shown.Digest != decided.Digest {
		b.t.Errorf("status shows %+v, and it was decided %+v", shown, decided)
	}
	return decided
}

// TestABootSourceIsDecidedOnce, by the binary and the daemon that the image has: accepted, changed and accepted, rejected by a check,
// and no file at all.
func TestABootSourceIsDecidedOnce(t *testing.T) {
	t.Parallel()
	b := newBooting(t)
	first := b.file
	second := edited(t, first, "\nbgp:\n", "\nconntrack: {max_entries: 4096}\n\nbgp:\n")
	unreachable := second + "\napply: {checks: [{reach: 203.0.113.77}]}\n"
	revisions := func(n int, live int) {
		t.Helper()
		history, err := b.api.History(t.Context())
		if err != nil || len(history) != n || b.status().Engine.Revision != live {
			t.Errorf("%d revisions (%v), %d is live; want %d and %d", len(history), err, b.status().Engine.Revision, n, live)
		}
	}
	if d := b.boot(first); d.Outcome != source.Accepted || d.Revision != 1 {
		t.Fatalf("the first boot: %+v", d)
	}
	revisions(1, 1)
	b.terminate()
	if d := b.boot(second); d.Outcome != source.Accepted || d.Revision != 2 {
		t.Errorf("another source: %+v", d)
	}
	revisions(2, 2)
	b.terminate()
	if d := b.boot(unreachable); d.Outcome != source.Rejected || !strings.Contains(d.Why, "reach 203.0.113.77") {
		t.Errorf("one whose check fails: %+v", d)
	}
	revisions(3, 2)
	b.terminate()
	if d := b.boot(unreachable); d.Outcome != source.Rejected {
		t.Errorf("the same again: %+v", d)
	}
	revisions(3, 2)
	if said := b.sluice("show", "status").out; !strings.Contains(said, "rejected: check failed: reach 203.0.113.77") {
		t.Errorf("status says\n%s", said)
	}
}
