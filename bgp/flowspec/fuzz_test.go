package flowspec_test

import (
	"bytes"
	"testing"

	"sluice/bgp/flowspec"
)

func seeds(f *testing.F) [][]byte {
	var out [][]byte
	for _, wire := range []string{
		"01 18 c0 00 02 02 18 cb 00 71 04 03 89 45 8b 91 1f 90", "01 20 00 20 01 0d b8 02 68 40 12 34 56 78 9a 03 81 06",
		"02 68 41 24 68 ac f1 34", "09 01 02 c2 10 0a 93 05 dc 0b 81 2e 0c 00 02 81 08", "0d a1 00 0a bc de", "03 87 01 01 00",
	} {
		out = append(out, octets(f, wire))
	}
	return out
}

// What Parse takes comes back, but for padding; and again it comes back octet by octet.
func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, wire []byte, ipv4 bool) {
		family := flowspec.IPv6
		if ipv4 {
			family = flowspec.IPv4
		}
		r, err := flowspec.Parse(family, wire)
		if err != nil {
			return
		}
		out, err := r.MarshalComponents()
		if err != nil || len(out) != len(wire) {
			t.Fatalf("%x is %s, which comes back as %x, %v", wire, r, out, err)
		}
		again, err := flowspec.Parse(family, out)
		if err != nil || flowspec.Compare(r, again) != 0 || r.String() != again.String() {
			t.Fatalf("%x is %s, and then %s, %v", wire, r, again, err)
		}
		once, err := again.MarshalComponents()
		if err != nil || !bytes.Equal(once, out) {
			t.Fatalf("%x comes back as %x, %v", out, once, err)
		}
		if !hasPrefix(r) && !bytes.Equal(out, wire) {
			t.Fatalf("%x comes back as %x, and has no padding", wire, out)
		}
	})
}

func hasPrefix(r flowspec.Rule) bool {
	_, dst := r.Component(flowspec.Destination)
	_, src := r.Component(flowspec.Source)
	return dst || src
}

// The order of any three rules is a strict weak one.
func FuzzCompare(f *testing.F) {
	all := seeds(f)
	for i := range all {
		f.Add(all[i], all[(i+1)%len(all)], all[(i+2)%len(all)], i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, a, b, c []byte, ipv4 bool) {
		family := flowspec.IPv6
		if ipv4 {
			family = flowspec.IPv4
		}
		var rules [3]flowspec.Rule
		for i, wire := range [][]byte{a, b, c} {
			var err error
			if rules[i], err = flowspec.Parse(family, wire); err != nil {
				return
			}
		}
		weak(t, rules[0], rules[1], rules[2])
	})
}

// Octets of attributes are read or refused.
func FuzzActions(f *testing.F) {
	f.Add(octets(f, "80 06 fd e8 00 00 00 00 80 07 00 00 00 00 00 03"), []byte{})
	f.Add([]byte{}, octets(f, "000d 2001 0db8 0000 0000 0000 0000 0000 0001 0064"))
	f.Fuzz(func(t *testing.T, communities, communities6 []byte) {
		actions, err := flowspec.ParseActions(communities, communities6)
		if text := flowspec.ActionsText(actions); err == nil && text == "" {
			t.Fatal("no text")
		}
		for _, a := range actions {
			if !(a.Rate >= 0) {
				t.Fatalf("rate %v", a.Rate)
			}
		}
	})
}
