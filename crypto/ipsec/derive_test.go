package ipsec

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"sluice/crypto/keys"
)

func masterKey(t *testing.T) keys.Key {
	t.Helper()
	file := filepath.Join(t.TempDir(), "master")
	if err := keys.GeneratePSK(file); err != nil {
		t.Fatal(err)
	}
	k, err := keys.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustDirection(t *testing.T, master keys.Key, from, to string) direction {
	t.Helper()
	d, err := newDirection(master, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func keyOf(t *testing.T, d direction, epoch uint64) string {
	t.Helper()
	k, err := d.key(epoch)
	if err != nil {
		t.Fatal(err)
	}
	b := k()
	return hex.EncodeToString(b[:])
}

func TestWhateverDiffersGivesAnotherKey(t *testing.T) {
	one, two := masterKey(t), masterKey(t)
	seen := map[string]string{}
	for _, c := range []struct {
		master   keys.Key
		from, to string
		epoch    uint64
	}{
		{one, "a", "b", 1}, {two, "a", "b", 1}, {one, "b", "a", 1}, {one, "a", "b", 2}, {one, "a", "b", 257}, {one, "a", "b", 1 << 40},
		{one, "ab", "c", 1}, {one, "a", "bc", 1}, {one, "", "abc", 1}, {one, "abc", "", 1}, {one, "a\x00", "b", 1}, {one, "a", "\x00b", 1},
	} {
		d := mustDirection(t, c.master, c.from, c.to)
		name := fmt.Sprintf("%q to %q in %d", c.from, c.to, c.epoch)
		for what, value := range map[string]string{"key": keyOf(t, d, c.epoch), "key alone": keyOf(t, d, c.epoch)[:64]} {
			if other := seen[what+value]; other != "" {
				t.Errorf("%s and %s have one %s", other, name, what)
			}
			seen[what+value] = name
		}
	}
}

func TestBothEndsDeriveTheSame(t *testing.T) {
	master := masterKey(t)
	send, receive := mustDirection(t, master, "a", "b"), mustDirection(t, master, "a", "b")
	for _, e := range []uint64{1, 255, 256, 3624221} {
		if keyOf(t, send, e) != keyOf(t, receive, e) || send.spi(e) != receive.spi(e) {
			t.Errorf("epoch %d differs", e)
		}
	}
}

func TestSPIsTellWhoseTheyAreAndNoneIsReserved(t *testing.T) {
	master := masterKey(t)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		d := mustDirection(t, master, fmt.Sprint("node", i), "b")
		e := r.Uint64N(1<<25) + 1
		spi := d.spi(e)
		if spi < 256 || !d.owns(spi) || d.tag == 0 || d.tag&spiMask != 0 {
			t.Fatalf("%d has SPI %#x, tag %#x", i, spi, d.tag)
		}
		if got, ok := latest(spi, e); !ok || got != e {
			t.Fatalf("epoch %d is read as %d", e, got)
		}
		if got, _ := latest(spi, e+255); got != e {
			t.Fatalf("epoch %d is read as %d, 255 later", e, got)
		}
		if got, _ := latest(spi, e+256); got != e+256 {
			t.Fatalf("epoch %d is read as %d, 256 later", e, got)
		}
		for _, near := range window(e) {
			if near != e && d.spi(near) == spi {
				t.Fatalf("epochs %d and %d have one SPI", e, near)
			}
		}
	}
	if _, ok := latest(5, 3); ok {
		t.Error("there is no epoch 5 of at most 3")
	}
}

// Another version must not derive other keys: both ends would be deaf. The values are of another implementation of
// RFC 5869, for a master secret of zeros.
func TestDerivationIsFixed(t *testing.T) {
	d := mustDirection(t, keys.Key{}, "a.example", "b.example")
	if got := fmt.Sprintf("%#x", d.spi(3624221)); got != "0x6f18f71d" {
		t.Errorf("SPI %s", got)
	}
	if got := keyOf(t, d, 3624221); got != "bf9a6cec64acf2908749ac6acba4aa09ac4cd0c9662b455f96ca2209bd71bb2ea9ada52a" {
		t.Errorf("key %s", got)
	}
}

func TestNoSecretIsPrinted(t *testing.T) {
	d := mustDirection(t, masterKey(t), "a", "b")
	k, err := d.key(1)
	if err != nil {
		t.Fatal(err)
	}
	secret := k()
	s := sa{key: k}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		text := fmt.Sprintf(verb+verb+verb, d, s, k)
		for _, form := range []string{hex.EncodeToString(secret[:8]), fmt.Sprint(secret[:8])[1:20], string(secret[:8]), hex.EncodeToString(d.prk()[:8]), fmt.Sprint(d.prk()[:8])[1:20]} {
			if strings.Contains(text, form) {
				t.Errorf("%s shows a secret: %s", verb, text)
			}
		}
	}
}
