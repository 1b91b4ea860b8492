package ban

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct{ text, want, problem string }{
		{"192.0.2.7", "192.0.2.7/32", ""},
		{"192.0.2.7/32", "192.0.2.7/32", ""},
		{"192.0.2.0/24", "192.0.2.0/24", ""},
		{"2001:db8::7", "2001:db8::7/128", ""},
		{"2001:db8::/32", "2001:db8::/32", ""},
		{"::ffff:192.0.2.7", "192.0.2.7/32", ""},
		{"::ffff:192.0.2.0/120", "192.0.2.0/24", ""},
		{"0.0.0.0/8", "0.0.0.0/8", ""},
		{"fe80::1", "fe80::1/128", ""},
		{"", "", "want an address or a prefix"},
		{"web-1", "", "want an address or a prefix"},
		{"192.0.2.7/33", "", "want an address or a prefix"},
		{"192.0.2.7/", "", "want an address or a prefix"},
		{"192.0.2.007", "", "want an address or a prefix"},
		{"192.0.2.7 ", "", "want an address or a prefix"},
		{"192.0.2.7-9", "", "want an address or a prefix"},
		{"192.0.2.7/24", "", "its host bits are set: 192.0.2.0/24, or 192.0.2.7"},
		{"0.0.0.0/0", "", "that is everyone"},
		{"::/0", "", "that is everyone"},
		{"::ffff:0.0.0.0/96", "", "that is everyone"},
		{"::ffff:0.0.0.0/90", "", "write IPv4 prefixes as IPv4"},
		{"fe80::1%eth0", "", "leave the zone out"},
		{"224.0.0.1", "", "no packet on the wire"},
		{"ff02::1", "", "no packet on the wire"},
		{"127.0.0.1", "", "no packet on the wire"},
		{"0.0.0.0", "", "no packet on the wire"},
		{"::", "", "no packet on the wire"},
	} {
		got, err := ParseTarget(c.text)
		switch {
		case c.problem == "" && (err != nil || got.String() != c.want):
			t.Errorf("%q is %v (%v), want %s", c.text, got, err, c.want)
		case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
			t.Errorf("%q: %v, want %q", c.text, err, c.problem)
		}
	}
}

func TestWidePrefixes(t *testing.T) {
	for text, want := range map[string]bool{
		"10.0.0.0/8": false, "10.0.0.0/7": true, "192.0.2.7/32": false, "2001::/16": false, "2000::/15": true, "2001:db8::7/128": false,
	} {
		if got := IsWide(netip.MustParsePrefix(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// FuzzParseTarget: what is taken is a masked prefix of its own family, never everyone, and its text means it again.
func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{"192.0.2.7", "192.0.2.0/24", "2001:db8::/32", "::ffff:192.0.2.0/120", "fe80::1%eth0", "0.0.0.0/0", "1.2.3.4/ 8"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseTarget(text)
		if err != nil {
			return
		}
		if !p.IsValid() || p.Masked() != p || p.Bits() == 0 || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			t.Fatalf("%q became %v", text, p)
		}
		again, err := ParseTarget(Text(p))
		if err != nil || again != p {
			t.Fatalf("%q became %v, and its text %q became %v (%v)", text, p, Text(p), again, err)
		}
	})
}
