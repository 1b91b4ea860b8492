package config

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

const plantedKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY="

// TestNoErrorSpeaksASecret plants one wherever a slip of the keyboard puts it.
func TestNoErrorSpeaksASecret(t *testing.T) {
	raw, _ := base64.StdEncoding.DecodeString(plantedKey)
	const tunnel = "tunnels: [{name: t, type: wireguard, local: {address: 198.18.0.2, port: 1}, "
	for _, secret := range []string{plantedKey, strings.TrimRight(plantedKey, "="), hex.EncodeToString(raw), "0s" + plantedKey, "hunter2-password"} {
		isKey := secret != "hunter2-password"
		for _, c := range []struct {
			file string
			any  bool // of secrets that look like nothing, too
		}{
			{tunnel + "wireguard: {private_key_file:%s}}]", true},
			{tunnel + "wireguard: {private_key_file %s}}]", true},
			{tunnel + "wireguard: {private_key_file=%s}}]", true},
			{tunnel + "wireguard: {\"private_key_file:%s\": }}]", true},
			{tunnel + "wireguard: {%s: private_key_file}}]", true},
			{tunnel + "wireguard: {%s:private_key_file}}]", true},
			{tunnel + "wireguard: {%s: preshared_key_file}}]", true},
			{tunnel + "wireguard: {? %s : preshared_key_file}}]", true},
			{tunnel + "wireguard: {private_key_file: %s}}]", true},
			{tunnel + "wireguard: {private_key: %s}}]", true},
			{tunnel + "wireguard: {private_key:%s}}]", true},
			{tunnel + "wireguard: {PSK:%s}}]", true},
			{tunnel + "wireguard: [private_key_file:%s]}]", true},
			{tunnel + "wireguard: !private_key_file:%s }]", true},
			{tunnel + "wireguard: {private_key_file: *%s}}]", true},
			{tunnel + "wireguard: {private_key_file: &%s}}]", true},
			{tunnel + "wireguard: {private_key_file: \"%s}}]", true},
			{"%s: {a: 1}", false},
			{"%s: 1\n%[1]s: 2", false},
			{"node: {\"%s\": 1}", false},
			{"node: {name: %s/}", false},
			{"interfaces: [{name: %s, role: uplink}]", false},
			{"interfaces: [{name: eth0, role: %s}]", false},
			{"interfaces: [{name: eth0, role: uplink, mtu: %s}]", false},
			{"interfaces: [{name: eth0, role: uplink, addresses: [%s]}]", false},
			{"routes: [{prefix: %s, via: %[1]s}]", false},
			{"sysctls: [{key: %s, value: 1}]", false},
			{"sets: [{name: s, files: [%s]}]", false},
			{"sets: [{name: s, files: [%s/x]}]", false},
			{"sets: [{name: s, prefixes: [%s]}]", false},
			{"apply: {timeout: %s}", false},
			{"bgp: {asn: %s, router_id: %[1]s}", false},
			{"policy: {ingress: {default: drop, rules: [{name: r, action: drop, from: [%s], ports: [%[1]s], tcp_flags: [%[1]s], protocol: %[1]s}]}}", false},
			{"policy: {ingress: {default: drop, rules: [{name: r, action: drop, interfaces: [%s]}]}}", false},
			{tunnel + "peers: [{name: p, endpoints: [%s], id: %[1]s, prefixes: [%[1]s]}]}]", false},
			{strings.Repeat("x", 180) + "-%s: 1", false}, // where a long word is cut off
		} {
			if !isKey && !c.any {
				continue
			}
			text := fmt.Sprintf(c.file, secret)
			_, err := parse(text + "\n")
			if err == nil {
				if !strings.Contains(c.file, "interfaces: [{") && !strings.Contains(c.file, "sets:") {
					t.Errorf("%s: no error", text)
				}
				continue
			}
			if strings.Contains(err.Error(), secret[2:12]) {
				t.Errorf("%s\n%v", text, err)
			}
		}
	}
	_, err := parse("tunnels: [{wireguard: {private_key_file:" + plantedKey + "}}]\n")
	want := "tunnels[0].wireguard.private_key_file:(withheld): unknown key `private_key_file:(withheld)`; write a blank behind the colon of private_key_file"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got\n%v\nwithout\n%s", err, want)
	}
}

func TestWhatMayBeAKeyIsFoundAndNothingElse(t *testing.T) {
	missed := 0
	for i := range 2000 {
		sum := sha256.Sum256(fmt.Append(nil, i))
		for _, key := range []string{base64.StdEncoding.EncodeToString(sum[:]), base64.URLEncoding.EncodeToString(sum[:]), hex.EncodeToString(sum[:])} {
			for _, in := range []string{key, "0s" + key, "0x" + key, "psk:" + key + ",", `{"k":"a\n` + key + `\n"}`, `\u003c` + key + `\u003e`, "/etc/" + key} {
				if got := WithholdKeys(in, withheld, nil); strings.Contains(got, key[6:30]) {
					t.Errorf("%s: %s", in, got)
				}
			}
		}
		if bare := base64.RawStdEncoding.EncodeToString(sum[:]); WithholdKeys(bare, withheld, nil) != withheld {
			missed++
		}
	}
	if missed > 6 {
		t.Errorf("of 2000 keys without padding %d were missed", missed)
	}
	if got := WithholdKeys(`{"k":"a\n`+plantedKey+`"}`, withheld, nil); got != `{"k":"a\n(withheld)"}` {
		t.Errorf("in JSON: %s", got)
	}
	if got := WithholdKeys("a "+plantedKey+" b", withheld, func(w string) bool { return w == plantedKey }); got != "a "+plantedKey+" b" {
		t.Errorf("a public key: %s", got)
	}
	for _, plain := range []string{
		"", "edge-1", "/var/lib/sluice/keys/site/fra1/wireguard/private/present",
		"/tmp/TestLoadFileReadsBesideTheFile910080407/001/edge", "/tmp/TestAPipeIsRefusedAndNeverWaitedFor1892495254/001/edge",
		strings.Repeat("-", 80), strings.Repeat("=", 80), strings.Repeat("x", 80), "0123456789012345678901234567890123456789012345678901234567890",
		"d8f5a1f2d8f5a1f2d8f5a1f2d8f5a1f2d8f5a1f2", "net.ipv6.conf.all.accept_ra_rt_info_max_plen", "the-quick-brown-fox-jumps-over-the-lazy-dog-twice",
	} {
		if got := WithholdKeys(plain, withheld, nil); got != plain {
			t.Errorf("%s: %s", plain, got)
		}
	}
}
