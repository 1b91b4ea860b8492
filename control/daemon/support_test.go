package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/control/config"
)

func TestEveryFileThatAConfigurationNamesForAKeyIsKnownForOne(t *testing.T) {
	cfg := &config.Config{
		BGP: &config.BGP{Neighbors: []config.Neighbor{{PasswordFile: "/bgp"}}},
		Tunnels: []config.Tunnel{
			{PrivateKeyFile: "/wg", Peers: []config.Peer{{PresharedKeyFile: "/psk"}, {MasterKeyFile: "/master"}}, Pos: config.Pos{File: "/etc/site.yaml"}},
		},
	}
	got := filesNamedIn(cfg)
	slices.Sort(got)
	if strings.Join(got, " ") != "/bgp /master /psk /wg" {
		t.Errorf("got %q", got)
	}
	if got := filesNamedIn(nil); len(got) != 0 {
		t.Errorf("without a configuration: %q", got)
	}
}

// A file that nobody understands still says where keys are, and so do the revisions.
func TestFilesOfKeysAreKnownFromAFileWithErrors(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"site.yaml": "tunnels: [{private_key_file: " + at("wg") + ", preshared_key_file:" + at("psk") + ", ]}\n" +
			"password_file: '" + at("b g p") + "'\n\tmaster_key_file:\n    \"" + at("master") + "\"\nmaster_key_file: relative.key\n",
		"state/revisions/7/config.yaml": "private_key_file: " + at("stored") + "\n",
		"state/keys/custom":             "",
		"real/target":                   "",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o700), os.WriteFile(at(name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(at("real/target"), at("wg")); err != nil {
		t.Fatal(err)
	}
	got := SupportOptions{StateDir: at("state"), Doctor: DoctorOptions{File: at("site.yaml")}}.secretFiles(nil)
	for _, want := range []string{"wg", "wg.next", "real/target", "real/target.next", "real/target.old", "psk", "psk.old", "b g p", "master", "relative.key", "stored", "stored.next", "state/keys/custom"} {
		if !slices.Contains(got, at(want)) {
			t.Errorf("%s is not known: %q", want, got)
		}
	}
}

func TestTheKernelsLinesAreChosenByOurLinksAndWords(t *testing.T) {
	for line, want := range map[string]bool{
		"<6>[ 1.0] virtio_net virtio0 eth0: renamed from eth9\n":             true,
		"<6>[ 1.0] wireguard: fra1: Handshake for peer 1 did not complete\n": true,
		"<4>[ 1.0] IPsec: something\n":                                       true,
		"<6>[ 1.0] oom-kill:constraint=CONSTRAINT_NONE,task=sluice\n":        true,
		"<6>[ 1.0] e1000e: eth7 NIC Link is Down\n":                          true,
		"<6>[ 1.0] audit: user=bob exe=\"/bin/su\"\n":                        false,
		"<6>[ 1.0] usb 1-1: new device\n":                                    false,
		"<6>[ 1.0] eth01: another link\n":                                    false,
		"<6>[ 1.0] response: despite\n":                                      false,
	} {
		if got := isOurs(line, []string{"eth0", "fra1"}); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}
