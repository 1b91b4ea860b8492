package ban

import (
	"net/netip"
	"strings"
	"testing"
)

func TestBansOfAnAddressAnAuthorOrAReason(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	for _, b := range []struct{ target, by, why string }{
		{"192.0.2.7", "ann", "SSH guessing"}, {"192.0.2.0/24", "bob", ""}, {"198.51.100.0/25", "ann", ""}, {"2001:db8::/32", "bob", "ssh"},
	} {
		if _, err := l.Add(targets(t, b.target), 0, b.why, b.by); err != nil {
			t.Fatal(err)
		}
	}
	about := func(text string) Query { return Query{About: netip.MustParsePrefix(text)} }
	for _, c := range []struct {
		q     Query
		want  string
		total int
	}{
		{Query{}, "192.0.2.0/24 192.0.2.7 198.51.100.0/25 2001:db8::/32", 4},
		{Query{Limit: 2}, "192.0.2.0/24 192.0.2.7", 4},
		{Query{Limit: 9}, "192.0.2.0/24 192.0.2.7 198.51.100.0/25 2001:db8::/32", 4},
		{about("192.0.2.7/32"), "192.0.2.0/24 192.0.2.7", 2},
		{about("192.0.2.8/32"), "192.0.2.0/24", 1},
		{about("192.0.0.0/16"), "192.0.2.0/24 192.0.2.7", 2},
		{about("2001:db8:1::1/128"), "2001:db8::/32", 1},
		{about("203.0.113.1/32"), "", 0},
		{Query{By: "ann", Limit: 1}, "192.0.2.7", 2},
		{Query{Why: "ssh"}, "192.0.2.7 2001:db8::/32", 2},
		{Query{About: netip.MustParsePrefix("0.0.0.0/0"), Why: "ssh", By: "bob"}, "", 0},
	} {
		some, total, err := l.Some(c.q)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range some {
			got = append(got, Text(b.Target))
		}
		if strings.Join(got, " ") != c.want || total != c.total {
			t.Errorf("%+v: %q of %d, want %q of %d", c.q, got, total, c.want, c.total)
		}
	}
}
