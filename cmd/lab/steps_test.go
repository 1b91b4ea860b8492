package lab

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/bgp/torsim"
)

func fullTable() Table {
	t := Table{Sessions: []bgp.NeighborStatus{{State: "established"}, {State: "established"}}}
	for _, p := range advertised {
		t.Entries = append(t.Entries, torsim.Entry{Prefix: netip.MustParsePrefix(p)})
	}
	return t
}

func TestATableIsCompleteOrSaysWhatItLacks(t *testing.T) {
	cases := map[string]struct {
		change func(*Table)
		says   string
	}{
		"complete":       {func(*Table) {}, ""},
		"more than that": {func(t *Table) { t.Entries = append(t.Entries, torsim.Entry{}) }, ""},
		"no session":     {func(t *Table) { t.Sessions[0].State = "active" }, "1 of 2 sessions are up"},
		"one is missing": {func(t *Table) { t.Entries = t.Entries[1:] }, "the ToR lacks " + advertised[0]},
		"stale":          {func(t *Table) { t.Entries[2].Stale = true }, "1 prefix is stale"},
	}
	for name, c := range cases {
		table := fullTable()
		c.change(&table)
		err := complete(table)
		if c.says == "" && err != nil || c.says != "" && (err == nil || err.Error() != c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestALoadCountsTheRequestsOfItsTime(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	lost := errors.New("no answer")
	answers := []answer{
		{at(0), 50 * time.Millisecond, nil}, // before
		{at(10), 3 * time.Millisecond, nil},
		{at(20), 1 * time.Millisecond, nil},
		{at(30), 5 * time.Second, lost},
		{at(40), 2 * time.Millisecond, nil},
		{at(50), 50 * time.Millisecond, lost}, // after
	}
	l := load(answers, at(10), at(50))
	if l.Sent != 4 || l.Lost != 1 || l.Median != 2*time.Millisecond || l.Max != 3*time.Millisecond || !errors.Is(l.Err, lost) {
		t.Errorf("%+v", l)
	}
	if err := lossless(l); err == nil || !strings.Contains(err.Error(), "1 of 4 requests were lost, the first: after 5s: no answer") {
		t.Errorf("%v", err)
	}
	if err := lossless(load(answers, at(100), at(200))); err == nil {
		t.Error("no request at all is taken for none lost")
	}
	if err := lossless(load(answers, at(0), at(30))); err != nil {
		t.Errorf("nothing was lost, and yet: %v", err)
	}
}

func TestMostOfAFloodHasToBeDropped(t *testing.T) {
	for _, c := range []struct {
		dropped, sent uint64
		ok            bool
	}{{90, 100, true}, {89, 100, false}, {101, 100, true}, {0, 0, false}} {
		if err := mostly(c.dropped, c.sent); (err == nil) != c.ok {
			t.Errorf("%d of %d: %v", c.dropped, c.sent, err)
		}
	}
}

func TestPollTriesUntilItSucceedsOrItsTimeIsOver(t *testing.T) {
	tries := 0
	err := poll(t.Context(), func() error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || tries != 3 {
		t.Errorf("%d tries, %v", tries, err)
	}
	ended := errors.New("it has ended")
	if err := poll(t.Context(), func() error { return fatal(ended) }); err != ended {
		t.Errorf("a fatal error: %v", err)
	}
	over := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if err := poll(ctx, func() error { return errors.New("not yet") }); !errors.Is(err, over) || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("after the end: %v", err)
	}
}
