package main

import (
	"strings"
	"testing"
	"time"

	"sluice/control/api"
)

func TestDrainAndUndrain(t *testing.T) {
	for _, c := range []struct {
		args, asked, out string
		before           string
	}{
		{"drain", `drain after 30s by "ann"`, "drained: everything is withdrawn; `sluice undrain` announces it again\n", ""},
		{"drain --wait 1m30s", `drain after 90s by "ann"`, "drained: everything is withdrawn; `sluice undrain` announces it again\n", ""},
		{"undrain", "undrain", "not drained any more: everything is announced as the file says\n", api.DrainDone},
		{"undrain", "undrain", "not drained: nothing to do\n", api.DrainNone},
	} {
		b := daemonOf(t, &box{drain: api.Drain{State: c.before}})
		sluice(t, strings.Fields(c.args)...).is(t, done(c.out))
		if len(b.asked) != 1 || b.asked[0] != c.asked {
			t.Errorf("%s: the daemon was asked %q, want %q", c.args, b.asked, c.asked)
		}
	}
	for _, args := range []string{"drain now", "drain --wait 30", "drain --wait -1s", "undrain all"} {
		if got := sluice(t, strings.Fields(args)...); got.code != exitUsage || got.err == "" {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestStatusTellsOfADrain(t *testing.T) {
	since, until := noon.Add(-time.Minute), noon.Add(20*time.Second)
	for want, d := range map[string]api.Drain{
		"draining since 1m0s, by ann: everything is announced as the last choice, and withdrawn in 20s\n": {State: api.DrainGraceful, Since: &since, By: "ann", WithdrawnAt: &until},
		"drained since 1m0s: everything is withdrawn\n":                                                   {State: api.DrainDone, Since: &since},
	} {
		daemonOf(t, &box{shown: api.Status{Drain: &d}})
		if got := sluice(t, "show", "status"); got.code != exitDone || !strings.Contains(got.out, "\ndrain       "+want) {
			t.Errorf("show status: %+v, want %q", got, want)
		}
	}
}
