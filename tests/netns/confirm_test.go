package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/xdp/pin"
)

// The change that the tests of confirmation make: the web is closed for everybody.
const (
	webOpen   = "- {name: web, to: [web-1, web-2], protocol: tcp, ports: [80, 443], action: accept}"
	webClosed = "- {name: web, to: [web-1, web-2], protocol: tcp, ports: [80, 443], action: drop}"
)

// open and closed complain unless packets meet that verdict.
func (s *site) open() error { return s.get(s.Client, lab.Web6[0], 80, "web-1") }

func (s *site) closed() error { return s.unanswered(s.Client, lab.Web6[0], 80) }

func (s *site) mustBe(verdict func() error) {
	s.t.Helper()
	if err := verdict(); err != nil {
		s.t.Fatal(err)
	}
}

// history is number and status of every revision.
func (s *site) history() string {
	s.t.Helper()
	var revisions []api.Revision
	s.json(&revisions, "history")
	var out []string
	for _, r := range revisions {
		out = append(out, fmt.Sprintf("%d %s", r.Number, r.Status))
	}
	return strings.Join(out, ", ")
}

func (s *site) json(v any, args ...string) {
	s.t.Helper()
	r := s.sluice(append(args, "-o", "json")...)
	if r.code != 0 {
		s.t.Fatalf("sluice %s: %d %s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		s.t.Fatalf("sluice %s: %v in\n%s", strings.Join(args, " "), err, r.out)
	}
}

// reverts waits until revision is live and nothing is pending.
func (s *site) reverts(revision int) {
	s.t.Helper()
	eventually(s.t, func() error {
		if e := s.status().Engine; e.Revision != revision || e.Pending != nil || !e.Applied {
			return fmt.Errorf("revision %d is live, pending %v, applied %v; want revision %d", e.Revision, e.Pending, e.Applied, revision)
		}
		return nil
	})
}

func (s *site) wantHistory(want string) {
	s.t.Helper()
	if got := s.history(); got != want {
		s.t.Errorf("history: %s; want %s", got, want)
	}
}

func TestWhatNobodyConfirmsGoesBackByItselfAndWhatIsConfirmedStays(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.mustBe(s.open)
	before := s.machineWithoutIDs()
	s.edit(webOpen, webClosed)
	said := s.apply("--confirm", "15s")
	if !strings.Contains(said, "it goes back to revision 1 in") {
		t.Errorf("apply says %q", said)
	}
	s.mustBe(s.closed)
	// While it is pending a plain apply is refused, and changes nothing.
	r := s.sluice("apply", "-c", s.Gateway.File)
	if r.code != 1 || !strings.Contains(r.err, "pending") {
		t.Errorf("apply while pending: %d %s%s", r.code, r.out, r.err)
	}
	s.reverts(1)
	s.mustBe(s.open)
	s.same("gone back", before, s.machineWithoutIDs())
	if r := s.sluice("confirm"); r.code != 1 || !strings.Contains(r.err, "not confirmed in time") {
		t.Errorf("confirm when it is too late: %d %s%s", r.code, r.out, r.err)
	}
	s.wantHistory("1 confirmed, 2 reverted")

	s.apply("--confirm", "15s")
	s.apply("--confirm", "1m") // starts the clock again
	if p := s.status().Engine.Pending; p == nil || p.Base != 1 || p.Remaining < 10 {
		t.Errorf("pending after a second --confirm: %+v", p)
	}
	if r := s.sluice("confirm"); r.code != 0 {
		t.Fatalf("confirm: %d %s%s", r.code, r.out, r.err)
	}
	s.mustBe(s.closed)
	s.wantHistory("1 confirmed, 2 reverted, 3 confirmed")

	// Rolling back, and rolling that back.
	if r := s.sluice("rollback", "1"); r.code != 0 {
		t.Fatalf("rollback: %d %s%s", r.code, r.out, r.err)
	}
	s.mustBe(s.open)
	if r := s.sluice("rollback", "3"); r.code != 0 {
		t.Fatalf("rollback of the rollback: %d %s%s", r.code, r.out, r.err)
	}
	s.mustBe(s.closed)
	s.wantHistory("1 confirmed, 2 reverted, 3 confirmed, 4 confirmed, 5 confirmed")
	if r := s.sluice("show", "config", "4"); !strings.Contains(r.out, webOpen) {
		t.Errorf("revision 4 is not the content of revision 1:\n%s", r.out)
	}
	// FILE still holds what was applied last by hand, which is the content of 5.
	if s.status().Engine.FileDiffers {
		t.Error("status says that the file differs")
	}
}

func TestKillNineBeforeTheDeadlineDoesNotStopTheClock(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.edit(webOpen, webClosed)
	s.apply("--confirm", "20s")
	s.mustBe(s.closed)
	s.kill()
	s.mustBe(s.closed)
	s.start()
	if p := s.status().Engine.Pending; p == nil || p.Revision != 2 || p.Base != 1 {
		t.Errorf("after the restart pending is %+v", p)
	}
	s.reverts(1)
	s.mustBe(s.open)
	s.wantHistory("1 confirmed, 2 reverted")
}

func TestAStartAfterTheDeadlineGoesBackBeforeAnythingIsAnnounced(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	// The pending revision announces something that must not be heard again after its end.
	s.edit(webOpen, webClosed, "prefixes: [203.0.113.0/24, ", "prefixes: [203.0.113.0/24, 203.0.113.128/25, ")
	s.apply("--confirm", "10s")
	begin := time.Now()
	s.kill()
	s.mustBe(s.closed)
	eventually(t, func() error {
		if left := 10*time.Second - time.Since(begin); left > 0 {
			return fmt.Errorf("the deadline is %s ahead", left)
		}
		return nil
	})
	s.mustBe(s.closed) // nobody is there to go back
	s.start()
	s.reverts(1)
	s.mustBe(s.open)
	s.wantHistory("1 confirmed, 2 reverted")
	s.established()
}

// TestWhatAPendingRevisionGoesBackToStaysLoaded: the way back asks neither the verifier nor for memory. A spare takes its place
// only once the revision is confirmed. Another address of the box is another constant, so the two do not fit each other.
func TestWhatAPendingRevisionGoesBackToStaysLoaded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.startAnew()
	s.established()
	dir := pin.At(s.Gateway.BPFDir)
	loaded := func() []string {
		all, err := dir.Generations("xdp")
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(all, func(d string) bool { return d == "spare" })
	}
	base := loaded()
	if len(base) != 1 {
		t.Fatalf("generations %v, want the live one alone", base)
	}
	s.edit("198.18.0.2/30,", "198.18.0.2/30, 198.18.7.1/24,")
	s.apply("--confirm", "1m")
	// Ten seconds without a change, and spares are made.
	for until := time.Now().Add(12 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if !slices.Contains(loaded(), base[0]) {
			t.Fatal("the generation to go back to is gone while the revision is pending")
		}
	}
	if r := s.sluice("confirm"); r.code != 0 {
		t.Fatalf("confirm: %d %s%s", r.code, r.out, r.err)
	}
	eventually(t, func() error {
		all, err := dir.Generations("xdp")
		if err == nil && (slices.Contains(all, base[0]) || !slices.Contains(all, "spare")) {
			err = fmt.Errorf("generations %v, want the live one and a spare", all)
		}
		return err
	})
}

func TestKillNineAfterConfirmKeepsTheRevision(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.edit(webOpen, webClosed)
	s.apply("--confirm", "1m")
	if r := s.sluice("confirm"); r.code != 0 {
		t.Fatalf("confirm: %d %s%s", r.code, r.out, r.err)
	}
	s.kill()
	s.start()
	s.mustBe(s.closed)
	s.wantHistory("1 confirmed, 2 confirmed")
	s.established() // a second restart before the first is over would lose routes by the book (RFC 4724 section 4.2)

	// What is only edited waits for an apply, over any number of restarts.
	s.edit(webClosed, webOpen)
	s.terminate()
	s.start()
	s.established()
	s.mustBe(s.closed)
	if r := s.sluice("show", "status"); !strings.Contains(r.out, "differs from revision 2") {
		t.Errorf("show status does not tell that the file differs:\n%s", r.out)
	}
	s.wantHistory("1 confirmed, 2 confirmed")
	s.apply()
	s.mustBe(s.open)
	if r := s.sluice("show", "status"); strings.Contains(r.out, "differs") {
		t.Errorf("show status still tells of a difference:\n%s", r.out)
	}
}

func TestAFailedCheckGoesBackSoonerThanTheClock(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][]string{
		"an address that nobody has": {"\ntelemetry:", "\napply: {checks: [{reach: 198.18.0.77}]}\n\ntelemetry:"},
		"a neighbor that the change cuts off": {"\ntelemetry:", "\napply: {checks: [{neighbors: keep}]}\n\ntelemetry:",
			"address: 198.18.0.1, asn: 65000", "address: 198.18.0.1, asn: 65009"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGateway(t)
			s.edit(append(change, webOpen, webClosed)...)
			s.apply("--confirm", "10m")
			s.mustBe(s.closed)
			s.reverts(1)
			s.mustBe(s.open)
			s.wantHistory("1 confirmed, 2 reverted")
			if r := s.sluice("confirm"); r.code != 1 || !strings.Contains(r.err, "check failed") {
				t.Errorf("confirm: %d %s%s", r.code, r.out, r.err)
			}
			s.established()
		})
	}
	t.Run("a check that holds", func(t *testing.T) {
		t.Parallel()
		s := newGateway(t)
		s.edit("\ntelemetry:", "\napply: {checks: [{neighbors: keep}, {reach: 198.18.0.1}, {reach: \"2001:db8::1\"}]}\n\ntelemetry:")
		s.apply("--confirm", "10m")
		eventually(t, func() error {
			for _, c := range s.status().Engine.Conditions {
				if c.Type == "ChecksPassed" && c.Status == "True" {
					return nil
				}
			}
			return errors.New("the checks have not passed")
		})
		if r := s.sluice("confirm"); r.code != 0 {
			t.Errorf("confirm: %d %s%s", r.code, r.out, r.err)
		}
	})
}
