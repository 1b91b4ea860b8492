package bfd

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// golden is laid out by hand after the figure of RFC 5880 section 4.1.
const golden = "" +
	"23" + // version 1, diag 3
	"e8" + // state up (3), P, C
	"05" + // detect multiplier
	"18" + // 24 bytes
	"01020304" + "a1a2a3a4" + // discriminators
	"000186a0" + // 100,000 us
	"000493e0" + // 300,000 us
	"0000c350" // 50,000 us

var goldenPacket = packet{
	diag: NeighborDown, state: Up, flags: flagPoll | flagCPI, multiplier: 5, mine: 0x01020304, yours: 0xa1a2a3a4,
	minTx: 100 * time.Millisecond, minRx: 300 * time.Millisecond, minEcho: 50 * time.Millisecond,
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPacketsAreLaidOutAsInTheRFC(t *testing.T) {
	if got := hex.EncodeToString(goldenPacket.append(nil)); got != golden {
		t.Errorf("encoded  %s\nwant     %s", got, golden)
	}
	if got, discard := parse(unhex(t, golden)); got != goldenPacket || discard != Accepted {
		t.Errorf("decoded %+v (%v), want %+v", got, discard, goldenPacket)
	}
	for bit, want := range map[byte]uint8{0x20: flagPoll, 0x10: flagFinal, 0x08: flagCPI, 0x04: flagAuth, 0x02: flagDemand, 0x01: flagMultipoint} {
		if want != bit {
			t.Errorf("flag %#x is encoded as %#x", bit, want)
		}
	}
}

// Each case is the golden packet with one mutation, and where two are wrong the earlier check of section 6.8.6 speaks.
func TestWhatThePacketAloneShowsIsRefusedInTheOrderOfTheRFC(t *testing.T) {
	for _, c := range []struct {
		what   string
		mutate func(b []byte) []byte
		want   Discard
	}{
		{"as it is", func(b []byte) []byte { return b }, Accepted},
		{"with bytes behind it", func(b []byte) []byte { return append(b, 0, 0) }, Accepted},
		{"empty", func(b []byte) []byte { return nil }, BadLength},
		{"cut", func(b []byte) []byte { return b[:23] }, BadLength},
		{"version 0", func(b []byte) []byte { b[0] &= 0x1f; b[2] = 0; return b }, BadVersion},
		{"version 2", func(b []byte) []byte { b[0] = 2 << 5; return b }, BadVersion},
		{"length 23", func(b []byte) []byte { b[3], b[2] = 23, 0; return b }, BadLength},
		{"length 25 of 24", func(b []byte) []byte { b[3] = 25; return b }, BadLength},
		{"A and length 25", func(b []byte) []byte { b[1] |= flagAuth; b[3] = 25; return append(b, 0, 0) }, BadLength},
		{"A and length 26", func(b []byte) []byte { b[1] |= flagAuth; b[3] = 26; return append(b, 0, 0) }, Accepted},
		{"multiplier 0", func(b []byte) []byte { b[2] = 0; b[1] |= flagMultipoint; return b }, ZeroMultiplier},
		{"M", func(b []byte) []byte { b[1] |= flagMultipoint; clear(b[4:8]); return b }, Multipoint},
		{"my discriminator 0", func(b []byte) []byte { clear(b[4:12]); return b }, ZeroDiscriminator},
		{"up, your discriminator 0", func(b []byte) []byte { clear(b[8:12]); return b }, NotDown},
		{"init, your discriminator 0", func(b []byte) []byte { clear(b[8:12]); b[1] = byte(Init) << 6; return b }, NotDown},
		{"down, your discriminator 0", func(b []byte) []byte { clear(b[8:12]); b[1] = byte(Down) << 6; return b }, Accepted},
		{"admin down, your discriminator 0", func(b []byte) []byte { clear(b[8:12]); b[1] = 0; return b }, Accepted},
	} {
		if _, got := parse(c.mutate(unhex(t, golden))); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestEveryStateAndReasonHasAName(t *testing.T) {
	for d := range discards {
		if d.String() == "" {
			t.Errorf("reason %d has no label", uint8(d))
		}
	}
	for s := AdminDown; s <= Up; s++ {
		var back State
		if text, err := s.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != s {
			t.Errorf("%v reads back as %v (%v)", s, back, err)
		}
	}
	for d := range Diag(32) {
		var back Diag
		if text, err := d.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != d {
			t.Errorf("%v reads back as %v (%v)", d, back, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, golden))
	f.Add(unhex(f, golden)[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, discard := parse(b)
		if discard != Accepted || p.flags&flagAuth != 0 {
			return
		}
		again := p.append(nil)
		b[3] = packetSize // what is behind it is not ours
		if !bytes.Equal(again, b[:packetSize]) {
			t.Errorf("%x\nreads and writes as\n%x", b[:packetSize], again)
		}
	})
}
