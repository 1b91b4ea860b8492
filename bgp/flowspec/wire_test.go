package flowspec_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/bgp/flowspec"
	"sluice/bgp/flowspec/flowspectest"
)

func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parse is Parse of octets that must be good.
func parse(t testing.TB, f flowspec.Family, hexadecimal string) flowspec.Rule {
	t.Helper()
	r, err := flowspec.Parse(f, octets(t, hexadecimal))
	if err != nil {
		t.Fatalf("%s: %v", hexadecimal, err)
	}
	return r
}

// The octets of a rule, and what it says. Those of the RFCs are their examples.
func TestWireForms(t *testing.T) {
	for _, c := range []struct {
		family flowspec.Family
		wire   string
		want   string
	}{
		{4, "01 18 c0 00 02 03 81 06 04 81 19", "flow4 { dst 192.0.2.0/24; proto = 6; port = 25; }"}, // RFC 8955 section 4.3.1
		{4, "01 18 c0 00 02 02 18 cb 00 71 04 03 89 45 8b 91 1f 90", // 4.3.2
			"flow4 { dst 192.0.2.0/24; src 203.0.113.0/24; port >= 137 && <= 139 || = 8080; }"},
		{4, "01 20 c0 00 02 01 0c 80 05", "flow4 { dst 192.0.2.1/32; fragment dont-fragment+first-fragment; }"},
		{6, "01 20 00 20 01 0d b8 02 68 40 12 34 56 78 9a 03 81 06", // RFC 8956 section 3.8.1
			"flow6 { dst 2001:db8::/32; src ::1234:5678:9a00:0/104 offset 64; proto = 6; }"},
		{6, "02 68 41 24 68 ac f1 34", "flow6 { src ::1234:5678:9a00:0/104 offset 65; }"}, // 3.8.2
		{4, "01 00", "flow4 { dst 0.0.0.0/0; }"},
		{6, "01 00 00", "flow6 { dst ::/0; }"},
		{4, "02 0a 0a 40", "flow4 { src 10.64.0.0/10; }"},
		{4, "03 80 01", "flow4 { proto false; }"},
		{4, "03 87 01", "flow4 { proto true; }"},
		{4, "03 02 01 c6 06", "flow4 { proto > 1 && != 6; }"},
		{4, "04 84 19", "flow4 { port < 25; }"},
		{4, "05 93 1f 90", "flow4 { dport >= 8080; }"},
		{4, "06 a5 00 00 1f 90", "flow4 { sport <= 8080; }"},
		{4, "07 81 08 08 81 00", "flow4 { icmp type = 8; icmp code = 0; }"},
		{4, "09 81 02", "flow4 { tcp flags =syn; }"},
		{4, "09 01 02 c2 10", "flow4 { tcp flags =syn && !ack; }"},
		{4, "09 80 ff", "flow4 { tcp flags fin+syn+rst+psh+ack+urg+ece+cwr; }"},
		{4, "09 93 01 01", "flow4 { tcp flags !=fin+0x100; }"},
		{4, "09 80 00", "flow4 { tcp flags 0x0; }"},
		{4, "0a 93 05 dc", "flow4 { length >= 1500; }"},
		{4, "0b 81 2e", "flow4 { dscp = 46; }"},
		{4, "0c 00 02 81 08", "flow4 { fragment is-fragment || =last-fragment; }"},
		{4, "0c 80 10", "flow4 { fragment 0x10; }"},
		{6, "0d a1 00 0a bc de", "flow6 { label = 703710; }"},
	} {
		r, err := flowspec.Parse(c.family, octets(t, c.wire))
		if err != nil {
			t.Errorf("%s: %v", c.wire, err)
			continue
		}
		if got := r.String(); got != c.want {
			t.Errorf("%s says\n%s, want\n%s", c.wire, got, c.want)
		}
		if again, err := r.MarshalComponents(); err != nil || !bytes.Equal(again, octets(t, c.wire)) {
			t.Errorf("%s comes back as %x, %v", c.wire, again, err)
		}
	}
}

func TestWhatIsRefusedNamesComponentAndOctet(t *testing.T) {
	for _, c := range []struct {
		family     flowspec.Family
		wire, want string
	}{
		{4, "", "flowspec: octet 0: the rule has no component"},
		{4, "03 81 06 01 18 c0 00 02", "flowspec: component 1 (dst) at octet 3: it stands behind component 3: the order is ascending, and each comes once"},
		{4, "03 81 06 03 81 11", "flowspec: component 3 (proto) at octet 3: it stands behind component 3: the order is ascending, and each comes once"},
		{4, "00 81 06", "flowspec: octet 0: ipv4-flowspec has no component of type 0"},
		{4, "0d 81 06", "flowspec: component 13 (label) at octet 0: ipv4-flowspec has no component of type 13"},
		{6, "0e 81 06", "flowspec: component 14 (type 14) at octet 0: ipv6-flowspec has no component of type 14"},
		{4, "01", "flowspec: component 1 (dst) at octet 0: it ends within its length: 0 octets are left of 1"},
		{6, "01 20", "flowspec: component 1 (dst) at octet 0: it ends within its length: 1 octets are left of 2"},
		{4, "01 21 c0 00 02 01 00", "flowspec: component 1 (dst) at octet 0: a prefix of 33 bits: at most 32"},
		{6, "01 81 00", "flowspec: component 1 (dst) at octet 0: a prefix of 129 bits: at most 128"},
		{6, "01 20 20", "flowspec: component 1 (dst) at octet 0: offset 32 is not below the length 32 (RFC 8956 section 3.1)"},
		{6, "01 00 01", "flowspec: component 1 (dst) at octet 0: offset 1 is not below the length 0 (RFC 8956 section 3.1)"},
		{4, "01 18 c0 00", "flowspec: component 1 (dst) at octet 0: it ends within its pattern: 2 octets are left of 3"},
		{4, "01 00 03", "flowspec: component 3 (proto) at octet 2: it ends within its operators: 0 octets are left of 1"},
		{4, "05 91 1f", "flowspec: component 5 (dport) at octet 0: it ends within its values: 1 octets are left of 2"},
		{4, "05 01 1f", "flowspec: component 5 (dport) at octet 0: it ends within its operators: 0 octets are left of 1"},
		{4, "0b 91 00 2e", "flowspec: component 11 (dscp) at octet 0: a value of 2 octets: at most 1"},
		{4, "0c 91 00 02", "flowspec: component 12 (fragment) at octet 0: a value of 2 octets: at most 1"},
		{4, "09 a1 00 00 00 02", "flowspec: component 9 (tcp flags) at octet 0: a value of 4 octets: at most 2"},
	} {
		_, err := flowspec.Parse(c.family, octets(t, c.wire))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want\n%s", c.wire, err, c.want)
		}
		var where *flowspec.Error
		if !errors.As(err, &where) {
			t.Errorf("%s: %v is no *Error", c.wire, err)
		}
	}
}

// long is a rule with that many octets of components, an odd number.
func long(n int) flowspec.Rule {
	c := flowspec.Component{Type: flowspec.DestinationPort}
	for range (n - 1) / 2 {
		c.Terms = append(c.Terms, flowspec.NewTerm(flowspec.Equal, 80))
	}
	return flowspec.Rule{Family: flowspec.IPv4, Components: []flowspec.Component{c}}
}

func TestTheLengthHasOneOctetBelow240AndTwoFromThere(t *testing.T) {
	for n, want := range map[int]string{3: "03", 239: "ef", 241: "f0f1", 4095: "ffff"} {
		b, err := long(n).Marshal()
		if err != nil {
			t.Fatalf("%d octets: %v", n, err)
		}
		if head := hex.EncodeToString(b[:len(b)-n]); head != want {
			t.Errorf("%d octets: length %s, want %s", n, head, want)
		}
		components, rest, err := flowspec.Split(append(b, 1, 2))
		if err != nil || len(components) != n || !bytes.Equal(rest, []byte{1, 2}) {
			t.Errorf("%d octets: %d of them, rest %x, %v", n, len(components), rest, err)
		}
	}
	if _, err := long(4097).Marshal(); err == nil {
		t.Error("4097 octets were marshaled")
	}
	// Two octets are allowed for a short rule as well.
	if components, rest, err := flowspec.Split(octets(t, "f0 02 01 00")); err != nil || len(components) != 2 || len(rest) != 0 {
		t.Errorf("f002: %x, %x, %v", components, rest, err)
	}
	for _, cut := range []string{"", "f0", "05 01 00", "f1 00 01"} {
		if _, _, err := flowspec.Split(octets(t, cut)); err == nil {
			t.Errorf("%q was split", cut)
		}
	}
}

// Padding is ignored and comes back as zeros; all else is kept, reserved bits and needless widths too.
func TestOnlyPaddingIsLost(t *testing.T) {
	for wire, want := range map[string]string{
		"01 0a 0a 7f":             "010a0a40",
		"03 89 06":                "038906",
		"05 b1 00000000 00000050": "05b10000000000000050",
		"05 41 50 81 51":          "05415081 51",
	} {
		got, err := parse(t, flowspec.IPv4, wire).MarshalComponents()
		if err != nil || !bytes.Equal(got, octets(t, want)) {
			t.Errorf("%s comes back as %x, %v; want %s", wire, got, err, want)
		}
	}
}

func TestMarshalRefusesWhatNoNLRICanSay(t *testing.T) {
	good := parse(t, flowspec.IPv6, "01 20 00 20 01 0d b8 03 81 06")
	for name, spoil := range map[string]func(*flowspec.Rule){
		"family":        func(r *flowspec.Rule) { r.Family = flowspec.IPv4 },
		"no family":     func(r *flowspec.Rule) { r.Family = 0 },
		"order":         func(r *flowspec.Rule) { r.Components[0], r.Components[1] = r.Components[1], r.Components[0] },
		"no term":       func(r *flowspec.Rule) { r.Components[1].Terms = nil },
		"offset":        func(r *flowspec.Rule) { r.Components[0].Offset = 32 },
		"wide value":    func(r *flowspec.Rule) { r.Components[1].Terms = []flowspec.Term{{Op: flowspec.Equal, Value: 256}} },
		"no components": func(r *flowspec.Rule) { r.Components = nil },
	} {
		r := flowspec.Rule{Family: good.Family, Components: append([]flowspec.Component(nil), good.Components...)}
		spoil(&r)
		if b, err := r.Marshal(); err == nil {
			t.Errorf("%s: marshaled as %x", name, b)
		}
	}
}

func TestRandomRulesComeBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		r := flowspectest.Rule(rng, [...]flowspec.Family{flowspec.IPv4, flowspec.IPv6}[rng.IntN(2)])
		b, err := r.MarshalComponents()
		if err != nil {
			t.Fatalf("%s: %v", r, err)
		}
		again, err := flowspec.Parse(r.Family, b)
		if err != nil || flowspec.Compare(again, r) != 0 || again.String() != r.String() {
			t.Fatalf("%s comes back as %s, %v", r, again, err)
		}
	}
}
