package node

import (
	"maps"
	"os"
	"testing"
	"time"
)

func TestPhasesOfALogAreSummed(t *testing.T) {
	got, err := PhasesOf([]byte(`level=DEBUG msg=took part=compile time=2ms
level=INFO msg=applied revision=2
level=DEBUG msg=took part="step of tc" time=1.5s
level=DEBUG msg=took part=compile time=3ms
`))
	want := map[string]time.Duration{"compile": 5 * time.Millisecond, "step of tc": 1500 * time.Millisecond}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v %v, want %v", got, err, want)
	}
}

func TestTheCPUOfAProcessGrows(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after := before
	for deadline := time.Now().Add(30 * time.Second); after <= before; {
		if after, err = CPU(os.Getpid()); err != nil || time.Now().After(deadline) {
			t.Fatalf("%s, before %s: %v", after, before, err)
		}
	}
	if _, err := CPU(1 << 24); err == nil {
		t.Error("a process that is not there has used something")
	}
}
