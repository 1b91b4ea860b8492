package daemon

import (
	"strings"
	"testing"

	"sluice/control/api"
)

func TestWhatBecameOfAProcessThatWasToBeExchanged(t *testing.T) {
	one, other := api.Process{PID: 7}, api.Process{PID: 8}
	for _, c := range []struct {
		name        string
		before, now api.Process
		want        string
	}{
		{"exchanged", one, other, ""},
		{"started, where none was", api.Process{}, one, ""},
		{"the same", one, one, "process 7 still runs"},
		{"ended", one, api.Process{}, "process 7 has ended and no other runs yet"},
		{"none, as before", api.Process{}, api.Process{}, "tunnel fra1 has no process now, and none was started"},
	} {
		err := exchanged("fra1", c.before, c.now)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
