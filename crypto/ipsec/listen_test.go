package ipsec

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/crypto/keys"
)

// seal makes the ESP packet that a node in an epoch sends.
func seal(t testing.TB, d direction, epoch uint64, sequence uint32) []byte {
	t.Helper()
	k, err := d.key(epoch)
	if err != nil {
		t.Fatal(err)
	}
	key := k()
	block, err := aes.NewCipher(key[:32])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	esp := binary.BigEndian.AppendUint32(nil, d.spi(epoch))
	esp = binary.BigEndian.AppendUint32(esp, sequence)
	esp = binary.BigEndian.AppendUint64(esp, 0x1122334455667788)
	aad := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(esp[:4:4], 0), sequence)
	return gcm.Seal(esp, append(append([]byte{}, key[32:]...), esp[8:16]...), bytes.Repeat([]byte{7}, 100), aad)
}

func TestTheEpochOfAPacketIsFoundByWhatOpensIt(t *testing.T) {
	d := mustDirection(t, masterKey(t), "b", "a")
	now := minutes(noon)
	cases := map[string]struct {
		epoch, heard uint64
		now          time.Time
		found        bool
	}{
		"never heard, began now":               {now, 0, noon, true},
		"never heard, began a year ago":        {now - 500000, 0, noon, true},
		"never heard, and very young":          {3, 0, noon, true},
		"beyond the window":                    {now + 3, now, noon, true},
		"its disk was lost":                    {now, now - 300000, noon, true},
		"its clock is ahead of ours":           {now + 5000, now - 7, noon, true},
		"our clock is not set":                 {now + 600, now, time.Unix(0, 0), true},
		"a replay of what was heard":           {now, now, noon, false},
		"a replay of an epoch before":          {now - 256, now, noon, false},
		"a replay of one with the same bits":   {now - 512, now - 256, noon, false},
		"beyond what anybody can have counted": {now + 3000000, now, noon, false},
	}
	for name, c := range cases {
		got, ok := search(d, seal(t, d, c.epoch, 9), c.heard, c.now)
		if ok != c.found || ok && got != c.epoch {
			t.Errorf("%s: %d, %v; it was %d", name, got, ok, c.epoch)
		}
	}
	// What is likely is tried first: a node that began this minute and has counted on, one that began a while ago.
	for _, e := range []uint64{now + 1, now + 200, now - 1, now - 255} {
		if got, ok := search(d, seal(t, d, e, 9), 0, noon); !ok || got != e {
			t.Errorf("epoch %d is found as %d, %v", e, got, ok)
		}
	}
	forged := seal(t, d, now, 9)
	forged[len(forged)-1] ^= 1
	if got, ok := search(d, forged, 0, noon); ok {
		t.Errorf("a forged packet is of epoch %d", got)
	}
}

func TestAnEpochOfThePastIsToldOfOnce(t *testing.T) {
	d := mustDirection(t, masterKey(t), "b", "a")
	heard := minutes(noon)
	for epoch, want := range map[uint64]bool{
		heard + 1: false, heard: false, heard - 1: true, heard - 256: true, heard - 257: true, heard - 3000: true, heard - 500000: false,
	} {
		if got, ok := former(d, seal(t, d, epoch, 9), heard); ok != want || ok && got != epoch {
			t.Errorf("%d before: %d, %v", heard-epoch, got, ok)
		}
	}
	if got, ok := former(d, seal(t, d, 1, 9), 3); !ok || got != 1 {
		t.Errorf("a young one: %d, %v", got, ok)
	}
	forged := seal(t, d, heard-5, 9)
	forged[len(forged)-1] ^= 1
	if got, ok := former(d, forged, heard); ok {
		t.Errorf("a forged packet is of epoch %d", got)
	}

	n := newNode(t)
	var log strings.Builder
	n.log = slog.New(slog.NewTextHandler(&log, nil))
	n.register(wanted("fra1", "b"))
	e := ear{tunnel: "fra1", peer: "b", direction: d, heard: heard}
	n.tunnels["fra1"].peers["b"].turned = noon
	n.past(e, seal(t, d, heard-1, 9))
	if log.Len() != 0 {
		t.Errorf("what is late is told of:\n%s", log.String())
	}
	for range 2 {
		n.past(e, seal(t, d, heard-5, 9))
	}
	n.past(e, forged)
	if text := fmt.Sprintf("peer b sends in epoch %d, which was used before", heard-5); strings.Count(log.String(), text) != 1 {
		t.Errorf("log:\n%s", log.String())
	}
}

func BenchmarkSearchForTheEpochOfAForgedPacket(b *testing.B) {
	d, err := newDirection(keys.Key{}, "b", "a")
	if err != nil {
		b.Fatal(err)
	}
	forged := seal(b, d, 5, 1)
	forged[40] ^= 1
	for b.Loop() {
		search(d, forged, 0, noon)
	}
}

func TestESPIsFoundInPackets(t *testing.T) {
	esp := append([]byte{0xab, 0xcd, 0xef, 1, 0, 0, 0, 9}, bytes.Repeat([]byte{3}, 60)...)
	udp := append([]byte{0x11, 0x94, 0x11, 0x9f, 0, 76, 0, 0}, esp...) // 4500 to 4511
	v4 := func(protocol byte, payload []byte) []byte {
		h := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 18, 0, 1}
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
		return append(h, payload...)
	}
	v6 := func(next byte, payload []byte) []byte {
		h := make([]byte, 40)
		h[0], h[6] = 0x60, next
		binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
		copy(h[24:], netip.MustParseAddr("2001:db8::1").AsSlice())
		return append(h, payload...)
	}
	fragment := v4(50, esp)
	fragment[6] = 0x20
	cases := map[string]struct {
		packet []byte
		dst    string
		udp    bool
	}{
		"IPv4":                 {v4(50, esp), "198.18.0.1:0", false},
		"IPv4, padded":         {append(v4(50, esp), 0, 0), "198.18.0.1:0", false},
		"IPv6":                 {v6(50, esp), "[2001:db8::1]:0", false},
		"UDP over IPv4":        {v4(17, udp), "198.18.0.1:4511", true},
		"UDP over IPv6":        {v6(17, udp), "[2001:db8::1]:4511", true},
		"IKE":                  {v4(17, append(udp[:8:8], make([]byte, 60)...)), "", false},
		"a keepalive":          {v4(17, append(udp[:8:8], 0xff)), "", false},
		"a fragment":           {fragment, "", false},
		"cut off":              {v4(50, esp)[:50], "", false},
		"a header, no more":    {v4(50, nil), "", false},
		"nothing":              {nil, "", false},
		"options beyond":       {[]byte{0x4f, 0, 0, 20, 0, 0, 0, 0, 64, 50, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, "", false},
		"IPv6, too long":       {v6(50, esp)[:60], "", false},
		"half of a UDP header": {v4(17, udp[:5]), "", false},
	}
	for name, c := range cases {
		dst, got, inUDP := espOf(c.packet)
		if c.dst == "" {
			if got != nil {
				t.Errorf("%s: taken for ESP", name)
			}
			continue
		}
		if dst.String() != c.dst || !bytes.Equal(got, esp) || inUDP != c.udp {
			t.Errorf("%s: to %s, UDP %v, %x", name, dst, inUDP, got)
		}
	}
}

func FuzzESPOf(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 20, 0, 0, 0x40, 0, 64, 50, 0, 0, 192, 0, 2, 1, 198, 18, 0, 1})
	f.Add(make([]byte, 60))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, esp, _ := espOf(b); esp != nil && len(esp) < espHeader+icvBits/8 {
			t.Errorf("%d bytes are ESP", len(esp))
		}
	})
}
