package daemon

import (
	"encoding/json"
	"testing"
)

func TestSocketQueuesAreThoseInUseAndThoseRegistered(t *testing.T) {
	for _, c := range []struct {
		name       string
		registered []uint32
		inUse      int
		want       string
	}{
		{"nobody", nil, 2, `[{"queue":0,"registered":false,"in_use":true},{"queue":1,"registered":false,"in_use":true}]`},
		{"one of two, and one beyond", []uint32{1, 5}, 2,
			`[{"queue":0,"registered":false,"in_use":true},{"queue":1,"registered":true,"in_use":true},{"queue":5,"registered":true,"in_use":false}]`},
		{"the driver does not say", []uint32{0, 3}, 0, `[{"queue":0,"registered":true},{"queue":3,"registered":true}]`},
		{"the driver does not say, and nobody", nil, 0, `[]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := json.Marshal(socketQueues(c.registered, c.inUse)); err != nil || string(got) != c.want {
				t.Errorf("%s (%v), want %s", got, err, c.want)
			}
		})
	}
}
