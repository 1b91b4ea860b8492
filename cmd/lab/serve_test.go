package lab

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// query is for www.example.net, type A, class IN, with EDNS, as Go's resolver asks.
const query = "1234 0100 0001 0000 0000 0001" +
	"03 777777 07 6578616d706c65 03 6e6574 00 0001 0001" + "00 0029 04d0 0000 0000 0000"

const answered = "1234 8180 0001 0001 0000 0000" +
	"03 777777 07 6578616d706c65 03 6e6574 00 0001 0001" + "c00c 0001 0001 0000003c 0004 c633640a"

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(text), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheDNSServerKnowsOneAddress(t *testing.T) {
	if got := answerDNS(unhex(t, query)); !bytes.Equal(got, unhex(t, answered)) {
		t.Errorf("%x", got)
	}
	aaaa := unhex(t, query)
	aaaa[12+17+1] = 28
	if got := answerDNS(aaaa); len(got) != 12+21 || got[7] != 0 {
		t.Errorf("type AAAA: %x", got)
	}
	for n := range 12 + 21 {
		if got := answerDNS(unhex(t, query)[:n]); got != nil {
			t.Errorf("cut to %d bytes: %x", n, got)
		}
	}
	if got := answerDNS(unhex(t, answered)); got != nil {
		t.Errorf("an answer is answered: %x", got)
	}
}

func FuzzAnswerDNS(f *testing.F) {
	f.Add(unhex(f, query))
	f.Add(unhex(f, answered))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if got := answerDNS(packet); got != nil && (len(got) < 12 || got[2]&0x80 == 0 || !bytes.Equal(got[:2], packet[:2])) {
			t.Errorf("%x answers %x", got, packet)
		}
	})
}
