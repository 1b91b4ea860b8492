package flowspec_test

import (
	"testing"

	"sluice/bgp/flowspec"
)

func TestActions(t *testing.T) {
	for wire, want := range map[string]string{
		"":                                     "accept",
		"80 06 fd e8 00 00 00 00":              "discard",
		"80 06 00 00 80 00 00 00":              "discard", // -0
		"80 06 00 00 c4 7a 00 00":              "discard", // -1000: negative is zero
		"80 06 00 00 44 7a 00 00":              "rate 1000 bytes/s",
		"80 0c 00 00 44 7a 00 00":              "rate 1000 packets/s",
		"80 0c 00 00 00 00 00 00":              "discard",
		"80 06 00 00 7f 80 00 00":              "rate +Inf bytes/s",
		"80 07 00 00 00 00 00 03":              "sample, go on",
		"80 07 00 00 00 00 00 02":              "sample",
		"80 07 00 00 00 00 00 01":              "go on",
		"80 07 00 00 00 00 00 00":              "accept",
		"80 08 fd e8 00 00 00 64":              "redirect 65000:100",
		"81 08 c0 00 02 01 00 64":              "redirect 192.0.2.1:100",
		"82 08 00 01 00 00 00 64":              "redirect 65536:100",
		"80 09 00 00 00 00 00 ee":              "mark dscp 46",
		"01 0c c0 00 02 01 00 00":              "redirect to 192.0.2.1",
		"01 0c c0 00 02 01 00 01":              "copy to 192.0.2.1",
		"08 00 00 00 00 00 00 00":              "redirect to the next hop",
		"00 02 fd e8 00 00 00 64":              "accept", // a route target is no action
		"80 0700000000000280060000447a0000":    "sample, rate 1000 bytes/s",
		"80 06 0000 00000000 80 09 0000000000": "",
	} {
		got, err := flowspec.ParseActions(octets(t, wire), nil)
		if want == "" && err == nil || want != "" && (err != nil || flowspec.ActionsText(got) != want) {
			t.Errorf("%s: %q, %v; want %q", wire, flowspec.ActionsText(got), err, want)
		}
	}
	const addr = "2001 0db8 0000 0000 0000 0000 0000 0001"
	for wire, want := range map[string]string{
		"000d" + addr + "0064": "redirect [2001:db8::1]:100",
		"800b" + addr + "0064": "redirect [2001:db8::1]:100",
		"000c" + addr + "0000": "redirect to 2001:db8::1",
		"000c" + addr + "0001": "copy to 2001:db8::1",
		"0002" + addr + "0064": "accept",
		"000d" + addr:          "",
	} {
		got, err := flowspec.ParseActions(nil, octets(t, wire))
		if want == "" && err == nil || want != "" && (err != nil || flowspec.ActionsText(got) != want) {
			t.Errorf("%s: %q, %v; want %q", wire, flowspec.ActionsText(got), err, want)
		}
	}
}

func TestARateThatIsNoNumberIsRefused(t *testing.T) {
	if got, err := flowspec.ParseActions(octets(t, "80 06 00 00 7f c0 00 00"), nil); err == nil {
		t.Errorf("NaN is %q", flowspec.ActionsText(got))
	}
}
