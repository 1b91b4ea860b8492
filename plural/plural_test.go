package plural

import "testing"

func TestOf(t *testing.T) {
	for n, want := range map[int]string{0: "0 prefixes", 1: "1 prefix", 2: "2 prefixes", 11: "11 prefixes"} {
		if got := Of(n, "prefix", "prefixes"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
