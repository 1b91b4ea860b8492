package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/xdp/pin"
)

// feed is a watched set file beside the gateway's file.
func (s *site) feedPath() string { return filepath.Join(filepath.Dir(s.Gateway.File), "feed.netset") }

// feed replaces the watched file as a job that fetches it does: by a rename.
func (s *site) feed(lines ...string) {
	s.t.Helper()
	fresh := s.feedPath() + ".fetched"
	err := os.WriteFile(fresh, []byte("# a feed\n"+strings.Join(lines, "\n")+"\n"), 0o600)
	if err := errors.Join(err, os.Rename(fresh, s.feedPath())); err != nil {
		s.t.Fatal(err)
	}
}

// watches makes the live revision drop what a watched set file holds, which is nobody yet.
func (s *site) watches() {
	s.t.Helper()
	s.feed()
	s.edit("sets:\n", "sets:\n  - {name: feed, files: [feed.netset], watch: true}\n",
		"      - {name: no-attackers,", "      - {name: no-feed, from: [feed], action: drop}\n      - {name: no-attackers,")
	s.apply()
}

func (s *site) set(name string) api.Set {
	s.t.Helper()
	for _, set := range show[[]api.Set](s, "sets") {
		if set.Name == name {
			return set
		}
	}
	s.t.Fatalf("show sets has no %s", name)
	return api.Set{}
}

// told waits until the condition of set files has that status, with want in its message.
func (s *site) told(status, want string) {
	s.t.Helper()
	eventually(s.t, func() error {
		for _, c := range s.status().Engine.Conditions {
			if c.Type == "SetFilesRead" && string(c.Status) == status && strings.Contains(c.Message, want) {
				return nil
			}
		}
		return fmt.Errorf("no condition SetFilesRead=%s with %q: %+v", status, want, s.status().Engine.Conditions)
	})
}

func (s *site) passes() error { return s.get(s.Client, lab.Web4[0], 80, "web-1") }
func (s *site) drops() error  { return s.unanswered(s.Client, lab.Web4[0], 80) }

func TestAWatchedSetFileIsLiveWithoutARevisionWhilePacketsFlow(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.watches()
	f := s.follow(false)
	before := s.status().Engine.Revision
	s.mustBe(s.passes)

	// The other workload's clients lose nothing while the set changes and changes back, five times.
	begin := time.Now()
	stream := s.ToR.StartStream(t.Context(), lab.Web4[1], lab.Web6[1])
	t.Cleanup(stream.Stop)
	for range 5 {
		changed := time.Now()
		s.feed(lab.Client4.String())
		live := f.hears(t, "the changed file", func(e api.Event) bool { return e.SetFile != nil && e.SetFile.Prefixes == 1 && e.Time.After(changed) })
		t.Logf("from the rename to the new verdict: %s", live.Time.Sub(changed))
		s.mustBe(s.drops)
		s.feed()
		eventually(t, s.passes)
	}
	stream.Stop()
	if load := stream.Between(begin, time.Now()); load.Lost != 0 || load.Sent == 0 {
		t.Errorf("those whom the set is not about: %s, the first: %v", load, load.Err)
	}
	f.hears(t, "the changed file", func(e api.Event) bool {
		return e.SetFile != nil && e.SetFile.Prefixes == 1 && e.SetFile.Added == 1 && fmt.Sprint(e.SetFile.Sets) == "[feed]" && e.SetFile.File == s.feedPath()
	})
	if set := s.set("feed"); !set.Watched || set.Prefixes != 0 || set.LastChange == nil || set.LastError != "" || fmt.Sprint(set.Files) != "[feed.netset]" {
		t.Errorf("show sets: %+v", set)
	}

	// What is wrong is not taken, not even the part before the error.
	s.feed(lab.Client4.String(), "198.51.100.0/2")
	s.told("False", s.feedPath()+":3:1: 198.51.100.0/2 has host bits set")
	s.mustBe(s.passes)
	f.hears(t, "the bad file", func(e api.Event) bool { return e.SetFile != nil && strings.Contains(e.SetFile.Error, ":3:1: ") })
	if r := s.sluice("show", "sets"); !strings.Contains(r.out, "feed: what was good before goes on") {
		t.Errorf("show sets:\n%s", r.out)
	}
	if log := s.daemonLog(); !strings.Contains(log, s.feedPath()+":3:1: ") {
		t.Error("the log does not name file and line")
	}
	s.feed(lab.Client4.String())
	eventually(t, s.drops)
	s.told("True", "")

	// No revision comes of it, and a file that is watched does not make the file differ.
	if e := s.status().Engine; e.Revision != before || e.FileDiffers || e.Pending != nil {
		t.Errorf("status %+v", e)
	}
	if r := s.sluice("plan", "-c", s.Gateway.File); !strings.Contains(r.out, "nothing to do") {
		t.Errorf("plan:\n%s%s", r.out, r.err)
	}
}

func TestAWatchedSetFileIsNotTakenBackByConfirmationOrRollback(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.watches()
	s.edit("node: {name: e2e-gateway}", "node: {name: e2e-gateway-2}")
	s.apply("--confirm", "1m")
	left := s.status().Engine.Pending.Remaining
	s.feed(lab.Client4.String())
	eventually(t, s.drops)
	if p := s.status().Engine.Pending; p == nil || p.Revision != 3 || p.Remaining > left {
		t.Errorf("pending %+v, want revision 3 with less than %g s left", p, left)
	}
	s.apply("--confirm", "2s") // restarts the clock, and nobody confirms
	s.reverts(2)
	s.mustBe(s.drops)
	if r := s.sluice("rollback", "2"); r.code != 0 {
		t.Fatalf("rollback: %+v", r)
	}
	s.mustBe(s.drops)
	s.feed()
	eventually(t, s.passes)

	// Revision 1 watched nothing.
	if r := s.sluice("rollback", "1"); r.code != 0 {
		t.Fatalf("rollback: %+v", r)
	}
	eventually(t, func() error {
		for _, c := range s.status().Engine.Conditions {
			if c.Type == "SetFilesRead" {
				return fmt.Errorf("%+v", c)
			}
		}
		return nil
	})
}

func TestTheLastGoodContentsOfAWatchedSetFileOutliveKillNineAndAReboot(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.watches()
	s.feed(lab.Client4.String())
	eventually(t, s.drops)
	eventually(t, func() error { // it is on the disk
		kept, err := filepath.Glob(filepath.Join(s.Gateway.StateDir, "sets", "*.netset"))
		if err != nil || len(kept) != 1 {
			return fmt.Errorf("%d files are kept (%v)", len(kept), err)
		}
		if b, err := os.ReadFile(kept[0]); err != nil || !strings.Contains(string(b), lab.Client4.String()) {
			return fmt.Errorf("%q is kept (%v)", b, err)
		}
		return nil
	})
	s.kill()
	if err := os.Remove(s.feedPath()); err != nil {
		t.Fatal(err)
	}
	s.mustBe(s.drops)
	s.start()
	s.mustBe(s.drops)
	s.told("False", "cannot read "+s.feedPath()+": no such file or directory")

	s.terminate()
	if err := pin.At(s.Gateway.BPFDir).RemoveAll(); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.established()
	s.mustBe(s.drops)
	if set := s.set("feed"); set.Prefixes != 1 || set.LastError == "" {
		t.Errorf("show sets: %+v", set)
	}
	s.feed()
	eventually(t, s.passes)
	s.told("True", "")
}

func TestSetFilesOfTheRevisionAreTakenInByApplyAndBadOnesRefused(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.feed()
	s.edit("sets:\n", "sets:\n  - {name: feed, files: [feed.netset]}\n  - {name: idle, prefixes: [10.0.0.0/8]}\n",
		"      - {name: no-attackers,", "      - {name: no-feed, from: [feed], action: drop}\n      - {name: no-attackers,")
	said := s.apply()
	for _, want := range []string{"set idle is used by no rule", "ingress/no-feed: from is an empty set: it never matches"} {
		if !strings.Contains(said, want) {
			t.Errorf("apply does not warn %q:\n%s", want, said)
		}
	}
	var plan api.Plan
	s.json(&plan, "plan", "-c", s.Gateway.File)
	if len(plan.Warnings) != 2 || len(plan.SetFiles) != 0 || len(plan.Steps) != 0 {
		t.Errorf("plan -o json: %+v", plan)
	}
	s.feed(lab.Client4.String())
	s.mustBe(s.passes)
	for _, c := range [][2]string{
		{"show status", "feed.netset differs from revision 2: apply takes it in"},
		{"plan -c " + s.Gateway.File, "set file feed.netset differs from revision 2"},
		{"diff -c " + s.Gateway.File, "+" + lab.Client4.String()},
	} {
		if r := s.sluice(strings.Fields(c[0])...); !strings.Contains(r.out, c[1]) {
			t.Errorf("%s does not say %q:\n%s%s", c[0], c[1], r.out, r.err)
		}
	}
	s.apply()
	s.mustBe(s.drops)
	if e := s.status().Engine; e.Revision != 3 || e.FileDiffers || e.SetFiles != nil {
		t.Errorf("status %+v", e)
	}

	// A bad file changes nothing; it and a watched one that was never good refuse the apply.
	s.feed("nonsense")
	s.wants(s.sluice("apply", "-c", s.Gateway.File), 1, `feed.netset:2:1: sets[0].files[0]: "nonsense" is not an IP address`)
	s.edit("files: [feed.netset]}", "files: [none.netset], watch: true}")
	s.wants(s.sluice("apply", "-c", s.Gateway.File), 1, "good when it is first applied", "none.netset: no such file or directory")
	s.mustBe(s.drops)
	if e := s.status().Engine; e.Revision != 3 {
		t.Errorf("status %+v", e)
	}
}
