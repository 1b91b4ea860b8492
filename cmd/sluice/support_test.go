package main

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/control/api"
	"sluice/tests/bundle"
)

// bundled returns the files of a bundle by their names within it.
func bundled(t *testing.T, path string) map[string]string {
	t.Helper()
	packed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the bundle is readable by others: %v (%v)", info.Mode(), err)
	}
	out := map[string]string{}
	for name, text := range bundle.Unpack(t, packed) {
		out[strings.TrimPrefix(name, "sluice-support/")] = text
	}
	return out
}

// secretive is a site whose files hold planted secrets, wherever a careless hand may have put them; it returns the file and the secrets.
func secretive(t *testing.T) (file string, planted []string) {
	t.Helper()
	dir := t.TempDir()
	keyed := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := writeFile(path, text+"\n"); err != nil {
			t.Fatal(err)
		}
		planted = append(planted, text, hex.EncodeToString([]byte(text)))
		return path
	}
	wg := keyed("fra1.key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=")
	keyed("fra1.key.next", "QUJDREVGMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=")
	psk, master := keyed("par1.psk", "YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk="), keyed("muc1.master", "Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY=")
	bgp := keyed("tor.key", "planted-bgp-password")
	planted = append(planted, "planted-in-a-comment", "planted-in-the-environment")
	t.Setenv("SLUICE_PLANTED", "planted-in-the-environment")
	return write(t, "site.yaml", `# planted-in-a-comment
interfaces: [{name: eth0, role: uplink}] # planted-in-a-comment
management: {accept: [{protocol: tcp, ports: [22]}]}
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors: [{name: tor, address: 198.18.0.1, asn: 65000, password_file: `+bgp+`}]
tunnels:
  - name: fra1
    type: wireguard
    local: {address: 198.18.0.2, port: 51820}
    wireguard: {private_key_file: `+wg+`}
    peers: [{name: p, endpoints: ["198.51.100.7:51820"], public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=], prefixes: [10.20.0.0/16]}]
  - name: par1
    type: ipsec
    local: {address: 198.18.0.2}
    ipsec: {keying: ike}
    peers: [{name: p, endpoints: [198.51.100.8], preshared_key_file: `+psk+`, prefixes: [10.30.0.0/16]}]
  - name: muc1
    type: ipsec
    local: {address: 198.18.0.2}
    ipsec: {keying: static, id: a}
    peers: [{name: q, id: b, endpoints: [198.51.100.9], master_key_file: `+master+`, prefixes: [10.40.0.0/16]}]
`), planted
}

func holdsNone(t *testing.T, files map[string]string, planted []string) {
	t.Helper()
	for name, text := range files {
		for _, p := range planted {
			if strings.Contains(text, p) {
				t.Errorf("%s holds %q", name, p)
			}
		}
	}
}

func TestASupportBundleOfARunningDaemon(t *testing.T) {
	file, planted := secretive(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	daemonOf(t, &box{stored: api.StoredConfig{Meta: api.Revision{Number: 7}, Bytes: text}})
	bundle := filepath.Join(t.TempDir(), "ticket.tar.gz")
	got := sluice(t, "support", bundle)
	if got.code != exitDone || !strings.HasPrefix(got.out, bundle+", ") {
		t.Fatalf("%+v", got)
	}
	files := bundled(t, bundle)
	holdsNone(t, files, planted)
	for name, word := range map[string]string{
		"MANIFEST.txt": "show/status.txt\n", "version.txt": "kernel ", "config.yaml": "# revision 7, without its comments\ninterfaces: [{name: eth0, role: uplink}]\n",
		"show/status.txt": "node        edge-1", "show/status.json": `"xdp_generation"`, "show/tunnels.txt": "fra1", "show/policy.txt": "no-bogons",
		"show/drops.txt": "REASON", "show/bgp.txt": "NEIGHBOR", "doctor.txt": "tunnel-port/fra1/udp-51820", "xfrm.txt": "states and policies of Sluice's",
		"machine/ip-link.txt": "lo:", "machine/ip-rule-4.txt": "lookup main", "machine/ip-route-4.txt": "table local", "machine/tc-qdisc.txt": "qdisc",
	} {
		if !strings.Contains(files[name], word) {
			t.Errorf("%s does not say %q: %.300s", name, word, files[name])
		}
	}
	for args, want := range map[string]string{
		"":                            "state_dir /srv/edge\nbpf_dir /sys/fs/bpf/edge\n",
		"--bpf-dir /sys/fs/bpf/other": "state_dir /srv/edge\nbpf_dir /sys/fs/bpf/other\n",
		"-c " + file:                  "state_dir /var/lib/sluice\nbpf_dir /sys/fs/bpf/sluice\n",
	} {
		other := filepath.Join(t.TempDir(), "other.tar.gz")
		sluice(t, append(strings.Fields("support "+args), other)...)
		if got := bundled(t, other)["version.txt"]; !strings.HasSuffix(got, want) {
			t.Errorf("support %s looks at\n%swant\n%s", args, got, want)
		}
	}
	sluice(t, "support", bundle).is(t, outcome{exitNo, "", got.err + "sluice: open " + bundle + ": file exists: name another FILE\n"})
}

func TestASupportBundleWithoutADaemonSaysWhatItCouldNotGet(t *testing.T) {
	file, planted := secretive(t)
	bundle := filepath.Join(t.TempDir(), "ticket.tar.gz")
	got := sluice(t, "support", "-c", file, "--socket", filepath.Join(t.TempDir(), "none"), bundle)
	if got.code != exitDone || !strings.Contains(got.err, "incomplete: show/status.txt: could not reach the daemon") {
		t.Fatalf("%+v", got)
	}
	files := bundled(t, bundle)
	holdsNone(t, files, append(planted, "planted-"))
	for name, word := range map[string]string{
		"MANIFEST.txt": "show/tunnels.txt  INCOMPLETE: could not reach the daemon", "config.yaml": "without its comments; no daemon says what runs\n",
		"doctor.txt": "tunnel-port/par1/udp-500", "machine/ip-link.txt": "lo:",
	} {
		if !strings.Contains(files[name], word) {
			t.Errorf("%s does not say %q: %.300s", name, word, files[name])
		}
	}
}

// A file that is not understood may hold anything: it is left out as a whole, and what it names for keys is looked for still.
func TestAFileWithErrorsIsNotInABundle(t *testing.T) {
	file, planted := secretive(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const inline = "enl5eHd2dXRzcnFwb25tbGtqaWhnZmVkY2JhMDk4NzY="
	for _, slip := range []string{"{private_key: planted-inline}", "{wireguard: {private_key_file:" + inline + "}}", "{wireguard: {" + inline + ": private_key_file}}", "{password_file:planted-inline}"} {
		// The first error is what the doctor tells.
		if err := writeFile(file, "node: "+slip+"\n"+string(text)); err != nil {
			t.Fatal(err)
		}
		bundle := filepath.Join(t.TempDir(), "ticket.tar.gz")
		got := sluice(t, "support", "-c", file, "--socket", filepath.Join(t.TempDir(), "none"), bundle)
		if got.code != exitDone || !strings.Contains(got.err, "incomplete: config.yaml: "+file+" has errors, so it is left out") {
			t.Fatalf("%+v", got)
		}
		checked := sluice(t, "check", "-c", file)
		files := bundled(t, bundle)
		if !strings.Contains(files["doctor.txt"], "has errors, the first") {
			t.Errorf("the doctor does not tell the error: %s", files["doctor.txt"])
		}
		files["sluice check"] = checked.out + checked.err
		holdsNone(t, files, append(planted, "planted-", inline))
	}
}
