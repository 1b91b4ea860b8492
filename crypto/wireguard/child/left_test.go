package child

import (
	"net/netip"
	"testing"
	"time"
)

func TestWhatComesFromAPlaceThatWasLeftIsAnsweredAtTheNewOne(t *testing.T) {
	t.Parallel()
	place := func(text string) at {
		a, ok := atOf(text)
		if !ok {
			t.Fatal(text)
		}
		return a
	}
	former, next, other := place("192.0.2.1:51820"), place("[2001:db8::1]:51820"), place("192.0.2.1:51821")
	b := &bind{}
	own := placeOf(netip.MustParseAddr("198.18.0.1"), 0)
	check := func(what string, from, want at, source bool) {
		t.Helper()
		var name sockaddr
		putAddress(&name, from.place, from.port)
		e := (&receiver{bind: b}).endpoint(&name, own)
		if got := (at{e.remote, e.port}); got != want || e.source().IsValid() != source {
			t.Errorf("%s: what comes from %v is answered at %v from %v", what, from, got, e.source())
		}
	}
	check("at first", former, former, true)
	long := time.Now().Add(time.Hour)
	b.leave([]left{{former, next, long}})
	check("left", former, next, false)
	check("left", other, other, true)
	check("left", next, next, true)
	b.leave([]left{{next, former, long}})
	check("back", former, former, true)
	check("back", next, former, false)
	b.leave([]left{{next, other, time.Now()}})
	check("past", next, next, true)
	if b.left.Load() != nil {
		t.Error("every datagram goes on being compared with what is past")
	}
}

// Two peers that change places are both there.
func TestAPlaceThatAnotherPeerHasIsNotLeft(t *testing.T) {
	t.Parallel()
	const a, b, c = "public_key=aa\n", "public_key=bb\n", "public_key=cc\n"
	before := contacts(a + "endpoint=192.0.2.1:1\n" + b + "endpoint=192.0.2.2:1\n" + c)
	for _, one := range []struct {
		settings string
		want     []string // pairs
	}{
		{a + "endpoint=192.0.2.3:1\n" + c + "endpoint=192.0.2.4:1\n", []string{"192.0.2.1:1", "192.0.2.3:1"}},
		{a + "endpoint=192.0.2.2:1\n" + b + "endpoint=192.0.2.1:1\n", nil},
		{a + "endpoint=192.0.2.1:1\n", nil},
		{a + "allowed_ip=10.0.0.0/8\n", nil},
		{c + "endpoint=192.0.2.1:1\n", nil},
	} {
		var got []string
		for _, l := range leaving(before, contacts(one.settings)) {
			for _, p := range []at{l.from, l.to} {
				got = append(got, netip.AddrPortFrom(p.Addr, p.port).String())
			}
		}
		if len(got) != len(one.want) || len(got) > 0 && (got[0] != one.want[0] || got[1] != one.want[1]) {
			t.Errorf("%q: %v, want %v", one.settings, got, one.want)
		}
	}
}
