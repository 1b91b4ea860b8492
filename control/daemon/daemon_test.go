package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/bgp"
	"sluice/control/api"
	"sluice/control/engine"
	"sluice/crypto/keys"
)

var discard = slog.New(slog.DiscardHandler)

func TestLostNeighbors(t *testing.T) {
	now := []bgp.NeighborStatus{{Name: "a", State: "established"}, {Name: "b", State: "active"}, {Name: "c", State: "idle"}}
	for _, c := range []struct {
		name   string
		before []string
		want   []engine.Failure
	}{
		{"none was up", nil, nil},
		{"the one that was up is up", []string{"a"}, nil},
		{"one was lost", []string{"a", "b"}, []engine.Failure{{Check: "neighbors: keep", Message: "b was up and is active"}}},
		{"one is not in the file any more", []string{"a", "gone"}, nil},
		{"two were lost", []string{"c", "b"}, []engine.Failure{{Check: "neighbors: keep", Message: "b was up and is active"},
			{Check: "neighbors: keep", Message: "c was up and is idle"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, lost(c.before, now)); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
		})
	}
}

// idle builds a daemon that has not started: nothing of it is in the kernel.
func idle(t *testing.T) *Daemon {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "edge.yaml")
	if err := os.WriteFile(file, []byte(site), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := build(t.Context(), Options{File: file, StateDir: dir, BPFDir: "/sys/fs/bpf/sluice-" + filepath.Base(filepath.Dir(dir)),
		Socket: filepath.Join(dir, "s"), Version: "v1", Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.leave(context.Background()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(d.opts.BPFDir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("reading made %s (%v)", d.opts.BPFDir, err)
		}
	})
	return d
}

// TestADaemonWithoutARevisionCanBeRead: every noun answers, and what is empty is [] in JSON, never null.
func TestADaemonWithoutARevisionCanBeRead(t *testing.T) {
	d := idle(t)
	objects := []string{"status", "policy", "flows", "routes", "tunnels", "flowspec", "bans"} // all others are lists
	for _, n := range api.Nouns {
		v, err := d.Show(t.Context(), n.Name)
		if err != nil {
			t.Errorf("show %s: %v", n.Name, err)
			continue
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Errorf("show %s: %v", n.Name, err)
		}
		if strings.Contains(string(text), "null") || string(text) != "[]" && !slices.Contains(objects, n.Name) {
			t.Errorf("show %s: %s", n.Name, text)
		}
	}
	_, err := d.Show(t.Context(), "frobs")
	var f *api.Failure
	if !errors.As(err, &f) || !f.Refused || f.Message != "nothing of that name to show: frobs" {
		t.Errorf("an unknown noun: %#v", err)
	}
	if history, err := d.History(t.Context()); err != nil || history == nil || len(history) != 0 {
		t.Errorf("history %v (%v)", history, err)
	}
	_, err = d.Config(t.Context(), 0)
	if !errors.As(err, &f) || !f.Refused || f.Message != "no revision is live yet" {
		t.Errorf("the live file: %#v", err)
	}
	_, err = d.Config(t.Context(), 7)
	if !errors.As(err, &f) || !f.Refused {
		t.Errorf("a revision that there is not: %#v", err)
	}
}

func TestExplainOfAnInterfaceWithoutPrograms(t *testing.T) {
	d := idle(t)
	for _, c := range []struct{ iface, packet, want string }{
		{"eth9", "icmp 192.0.2.1 > 192.0.2.2 type=8", "no program of Sluice's is on \"eth9\"; `sluice show interfaces` lists those that have one"},
		{"eth9", "frob", ""},
	} {
		_, err := d.Explain(t.Context(), api.ExplainRequest{Interface: c.iface, Packet: c.packet})
		var f *api.Failure
		if !errors.As(err, &f) || !f.Refused || c.want != "" && f.Message != c.want {
			t.Errorf("%s: %#v, want %q", c.packet, err, c.want)
		}
	}
}

func TestACandidateIsParsedFromWhatWasSent(t *testing.T) {
	text := []byte("interfaces: [{name: eth0, role: uplink}]\nsets: [{name: s, files: [a.netset]}]\n")
	good := api.Candidate{Name: "e.yaml", Bytes: text, Files: []api.File{{Path: "a.netset", Contents: []byte("192.0.2.0/24\n")}}}
	c, err := new(Daemon).parseCandidate(good)
	if err != nil || c.Name != "e.yaml" || len(c.Files) != 1 || c.Config.SetByName("s").Prefixes[0].String() != "192.0.2.0/24" {
		t.Errorf("candidate %+v (%v)", c, err)
	}
	good.Files = nil
	_, err = new(Daemon).parseCandidate(good)
	want := "e.yaml:2:26: sets[0].files[0]: cannot read a.netset: a.netset was not sent along: file does not exist"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	var f *api.Failure
	if err := refused(err); !errors.As(err, &f) || !f.Refused || f.Message != want || len(f.Problems) != 1 || f.Problems[0].Line != 2 {
		t.Errorf("as an answer: %#v", f)
	}
	if refused(nil) != nil {
		t.Error("no error was refused")
	}
}

func TestAMissingKeySaysHowToMakeOne(t *testing.T) {
	dir := t.TempDir()
	there, none := filepath.Join(dir, "a.key"), filepath.Join(dir, "b.key")
	public, err := keys.Generate(there)
	if err != nil {
		t.Fatal(err)
	}
	tunnel := func(name, key string, port int) string {
		return fmt.Sprintf("  - {name: %s, type: wireguard, local: {address: 198.18.0.2, port: %d}, wireguard: {private_key_file: %s}, peers: []}\n", name, port, key)
	}
	got, list := readKeys(parsed(t, "tunnels:\n"+tunnel("a", there, 1)))
	if len(list) > 0 || !cmp.Equal(got, map[string]string{there: public}) {
		t.Errorf("keys %v (%v)", got, list)
	}
	_, list = readKeys(parsed(t, "tunnels:\n"+tunnel("a", there, 1)+tunnel("b", none, 2)))
	if len(list) != 1 || list[0].Pos.Line != 3 || list[0].Path != "tunnels[1].wireguard.private_key_file" ||
		!strings.Contains(list[0].Msg, "run: sluice key gen "+none) || list[0].Hint != "" { // said once
		t.Errorf("errors %v", list)
	}
}

func TestAKeyThatOthersMayReplaceIsReadAndToldOf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	private, shared := filepath.Join(dir, "a.key"), filepath.Join(dir, "b.key")
	public, err := keys.Generate(private)
	if err := errors.Join(err, keys.GeneratePSK(shared), os.Chmod(dir, 0o770)); err != nil {
		t.Fatal(err)
	}
	got, exposed := readKeys(parsed(t, fmt.Sprintf(`tunnels:
  - {name: a, type: wireguard, local: {address: 198.18.0.2, port: 1}, wireguard: {private_key_file: %s}, peers: []}
  - {name: b, type: ipsec, local: {address: 198.18.0.2}, ipsec: {keying: static}, peers: [{name: p, endpoints: [198.51.100.7], master_key_file: %s}]}
`, private, shared)))
	if got[private] != public || len(exposed) != 2 {
		t.Fatalf("keys %v, exposed %v", got, exposed)
	}
	for i, want := range []string{"tunnels[0].wireguard.private_key_file", "tunnels[1].peers[0].master_key_file"} {
		if e := exposed[i]; e.Path != want || e.Pos.Line != 2+i || !strings.Contains(e.Msg, "its directory "+dir+" has mode 0770") {
			t.Errorf("line %d: %v", e.Pos.Line, e)
		}
	}
}

func TestASecretOfIPsecStandsAtItsPeer(t *testing.T) {
	dir := t.TempDir()
	there, none, open := filepath.Join(dir, "a.key"), filepath.Join(dir, "b.key"), filepath.Join(dir, "c.key")
	for _, file := range []string{there, open} {
		if err := keys.GeneratePSK(file); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	tunnel := func(name, keying, key, file, id string) string {
		return fmt.Sprintf("  - {name: %s, type: ipsec, local: {address: 198.18.0.2}, ipsec: {keying: %s}, peers: [{name: p, id: %s, endpoints: [198.51.100.7], %s: %s}]}\n", name, keying, id, key, file)
	}
	good := tunnel("a", "static", "master_key_file", there, "a") + tunnel("b", "ike", "preshared_key_file", there, "b")
	if got, faults := readKeys(parsed(t, "tunnels:\n"+good)); len(faults) > 0 || len(got) != 0 {
		t.Errorf("keys %v (%v)", got, faults)
	}
	_, list := readKeys(parsed(t, "tunnels:\n"+good+tunnel("c", "static", "master_key_file", none, "c")+tunnel("d", "ike", "preshared_key_file", open, "d")))
	if len(list) != 2 {
		t.Fatalf("errors %v", list)
	}
	for i, want := range []string{
		"tunnels[2].peers[0].master_key_file: key file " + none + " does not exist; copy it from the other end, or make one for both: sluice key master " + none,
		"tunnels[3].peers[0].preshared_key_file: key file is open to others than its owner: " + open + " has mode 0644; run: chmod 600 " + open,
	} {
		if got := list[i].Path + ": " + list[i].Msg; got != want || list[i].Pos.Line != 4+i {
			t.Errorf("line %d: %s\nwant %s", list[i].Pos.Line, got, want)
		}
	}
}

// task is a Task under a test's control.
type task struct {
	name  string
	ready chan struct{}
	run   func(context.Context) error
}

func (t task) Run(ctx context.Context) error { return t.run(ctx) }
func (t task) Ready() <-chan struct{}        { return t.ready }
func (t task) String() string                { return t.name }

func TestTasks(t *testing.T) {
	until := func(ctx context.Context) error { <-ctx.Done(); return nil }
	t.Run("start one after the other and end with the context", func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var order []string
		begin := func(name string, then func()) task {
			ready := make(chan struct{})
			return task{name, ready, func(ctx context.Context) error {
				order = append(order, name) // each starts only after the one before is ready
				close(ready)
				then()
				return until(ctx)
			}}
		}
		if err := runTasks(ctx, begin("a", func() {}), begin("b", func() {}), begin("c", stop)); err != nil {
			t.Error(err)
		}
		if !slices.Equal(order, []string{"a", "b", "c"}) {
			t.Errorf("order %q", order)
		}
	})
	t.Run("all end when one fails", func(t *testing.T) {
		broken := errors.New("broken")
		err := runTasks(t.Context(), funcTask{"a", until}, funcTask{"b", func(context.Context) error { return broken }}, funcTask{"c", until})
		if !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("an end before the context is an error", func(t *testing.T) {
		err := runTasks(t.Context(), funcTask{"a", until}, funcTask{"lazy", func(context.Context) error { return nil }})
		if err == nil || err.Error() != "lazy ended by itself" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("one that fails before it is ready keeps the next from starting", func(t *testing.T) {
		broken := errors.New("broken")
		never := task{"never", make(chan struct{}), func(context.Context) error { return broken }}
		err := runTasks(t.Context(), never, funcTask{"next", func(context.Context) error { t.Error("it started"); return nil }})
		if !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("an error that only says that the context ended is a good end", func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		err := runTasks(ctx, funcTask{"a", func(ctx context.Context) error { stop(); <-ctx.Done(); return ctx.Err() }})
		if err != nil {
			t.Errorf("error %v", err)
		}
	})
}

// A gate that asks for neighbors which the live revision does not have misses none of them.
func TestTheGateMissesNoNeighborThatTheRevisionLacks(t *testing.T) {
	got, err := idle(t).Check(t.Context(), api.CheckRequest{Established: []string{"tor-z"}})
	if err != nil || got.Failing == nil || len(got.Failing) > 0 {
		t.Errorf("%+v %v", got, err)
	}
}
