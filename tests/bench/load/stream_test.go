package load

import (
	"errors"
	"testing"
	"time"
)

func TestWhatIperf3SaysIsRead(t *testing.T) {
	r, err := read([]byte(`{"start":{},"end":{"sum_sent":{"bytes":99},"sum_received":{"seconds":1.5,"bytes":42}}}`))
	if want := (Result{Bytes: 42, Wall: 1500 * time.Millisecond}); r != want || err != nil {
		t.Errorf("read %+v: %v", r, err)
	}
	if _, err := read([]byte(`{"end":{},"error":"unable to connect"}`)); err == nil || err.Error() != "unable to connect" {
		t.Errorf("its complaint is %v", err)
	}
	if _, err := read([]byte(`{"end":{}}`)); !errors.Is(err, ErrNothing) {
		t.Errorf("no bytes are %v", err)
	}
	if _, err := read(nil); err == nil {
		t.Error("silence was read")
	}
}

func TestCountersAreFoundByName(t *testing.T) {
	const text = "Ip: Forwarding RetransSegs\nIp: 1 7\nTcp: RtoMax InSegs RetransSegs\nTcp: 120000 -1 12\n"
	if n, err := counter(text, "Tcp:", "RetransSegs"); n != 12 || err != nil {
		t.Errorf("found %d: %v", n, err)
	}
	for _, name := range []string{"InSegs", "OutSegs"} {
		if n, err := counter(text, "Tcp:", name); err == nil {
			t.Errorf("%s is %d", name, n)
		}
	}
}
