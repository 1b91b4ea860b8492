package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/control/api"
	"sluice/control/host"
	"sluice/crypto/ike"
	"sluice/crypto/ipsec"
	"sluice/crypto/wireguard"
	"sluice/tests/nstest"
)

// told is findings as NAME=STATUS, after a look at what holds for every finding.
func told(t *testing.T, list []host.Finding) string {
	t.Helper()
	var out []string
	for _, f := range list {
		if fine := f.Status == host.StatusOK; f.Detail == "" || (f.Cost == "") != fine || (f.Fix == "") != fine {
			t.Errorf("a finding says too little or too much: %+v", f)
		}
		out = append(out, f.Name+"="+string(f.Status))
	}
	return strings.Join(out, " ")
}

func TestWhatTunnelsRunOnIsJudged(t *testing.T) {
	none := errors.New("operation not supported")
	for _, c := range []struct{ name, got, want string }{
		{"kernel WireGuard", told(t, judgeWireGuard(wireguard.Capabilities{}, nil, nil)), "wireguard=ok tun=ok sch_plug=ok"},
		{"kernel WireGuard without plug and TUN", told(t, judgeWireGuard(wireguard.Capabilities{TUN: none, Plug: none}, nil, nil)), "wireguard=ok sch_plug=warn"},
		{"userspace", told(t, judgeWireGuard(wireguard.Capabilities{Kernel: none, Plug: none}, nil, []string{"a"})), "wireguard=warn tun=ok"},
		{"userspace without TUN", told(t, judgeWireGuard(wireguard.Capabilities{Kernel: none, TUN: none}, nil, []string{"a"})), "wireguard=warn tun=missing"},
		{"the kernel's is demanded", told(t, judgeWireGuard(wireguard.Capabilities{Kernel: none}, []string{"a"}, nil)), "wireguard=missing tun=ok"},
		{"ESP", told(t, judgeESP(nil, nil, nil)), "esp=ok xfrm-statistics=ok"},
		{"no ESP", told(t, judgeESP([]string{"esp6"}, nil, fs.ErrNotExist)), "esp=missing xfrm-statistics=warn"},
		{"who knows", told(t, judgeESP(nil, none, none)), "esp=warn xfrm-statistics=warn"},
		{"charon", told(t, judgeCharon("/c", ike.About{Version: "charon-systemd 5.9.8", Plugins: []string{"kernel-netlink", "vici"}}, nil)), "charon/c=ok"},
		{"no charon", told(t, judgeCharon("/c", ike.About{}, ike.ErrNoCharon)), "charon/c=missing"},
		{"ESP of charon's own", told(t, judgeCharon("/c", ike.About{Plugins: []string{"kernel-libipsec", "kernel-netlink"}}, nil)), "charon/c=missing"},
		{"no way to the kernel", told(t, judgeCharon("/c", ike.About{Plugins: []string{"vici"}}, nil)), "charon/c=missing"},
		{"others' connections", told(t, judgeCharon("/c", ike.About{Plugins: []string{"kernel-netlink"}, Foreign: []string{"office"}}, nil)), "charon/c=ok charon-connections/c=warn"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}

const tunnelFile = `
interfaces: [{name: eth0, role: uplink}]
management: {accept: [{protocol: tcp, ports: [22]}]}
tunnels:
  - name: fra1
    type: wireguard
    local: {address: 198.18.0.2, port: 51820}
    wireguard: {private_key_file: /k}
    peers: [{name: p, endpoints: ["198.51.100.7:51820"], public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=], prefixes: [10.20.0.0/16]}]
  - name: par1
    type: ipsec
    local: {address: 198.18.0.2}
    ipsec: {keying: ike, charon: /nowhere/charon.vici}
    peers: [{name: p, endpoints: [198.51.100.8], preshared_key_file: /p, prefixes: [10.30.0.0/16]}]
  - name: muc1
    type: ipsec
    local: {address: 198.18.0.2, port: 4501}
    ipsec: {keying: static, id: a, encapsulation: udp}
    peers: [{name: p, id: b, endpoints: ["198.51.100.9:4501"], master_key_file: /m, prefixes: [10.40.0.0/16]}]
`

func TestTheDoctorLooksAtTheTunnelsOfWhatRunsElseOfTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "with.yaml")
	if err := os.WriteFile(file, []byte(tunnelFile), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	live := func(text string) func(context.Context) (api.StoredConfig, error) {
		return func(context.Context) (api.StoredConfig, error) { return api.StoredConfig{Bytes: []byte(text)}, nil }
	}
	dead := func(context.Context) (api.StoredConfig, error) { return api.StoredConfig{}, api.ErrUnreachable }
	const plain = "interfaces: [{name: eth0, role: uplink}]\n"
	words := []string{"wireguard", "tun=", "esp=", "xfrm-statistics", "charon/nowhere/charon.vici=missing", "clock", "rp_filter",
		"tunnel-port/fra1/udp-51820", "tunnel-port/par1/udp-500", "tunnel-port/par1/udp-4500", "tunnel-port/muc1/udp-4501"}
	for _, c := range []struct {
		name string
		o    DoctorOptions
		told bool
		file bool // a word about the file
	}{
		{"what runs has tunnels", DoctorOptions{File: bad, Config: live(tunnelFile)}, true, false},
		{"what runs has none, and the file has", DoctorOptions{File: file, Config: live(plain)}, false, false},
		{"the file is named", DoctorOptions{File: file, FileFirst: true, Config: live(plain)}, true, false},
		{"no daemon", DoctorOptions{File: file, Config: dead}, true, false},
		{"no daemon and no file", DoctorOptions{File: filepath.Join(dir, "none"), Config: dead}, false, false},
		{"no daemon and a bad file", DoctorOptions{File: bad, Config: dead}, false, true},
		{"a file is named that is not there", DoctorOptions{File: filepath.Join(dir, "none"), FileFirst: true, Config: live(tunnelFile)}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.BPFDir = t.TempDir()
			got := told(t, Doctor(t.Context(), c.o))
			for _, w := range words {
				if strings.Contains(" "+got, " "+w) != c.told {
					t.Errorf("%s: told %v, want %v, in %s", w, !c.told, c.told, got)
				}
			}
			if strings.Contains(got, "file=warn") != c.file {
				t.Errorf("a word about the file: %s", got)
			}
		})
	}
}

// TestTheDoctorKnowsTheHolderOfAPort: the process that holds the port of ESP in UDP is ours; whoever else has the port is not.
func TestTheDoctorKnowsTheHolderOfAPort(t *testing.T) {
	ns := nstest.Enter(t)
	ns.Address(t, "lo", "198.18.0.2/32")
	file := filepath.Join(t.TempDir(), "tunnels.yaml")
	if err := os.WriteFile(file, []byte(tunnelFile), 0o600); err != nil {
		t.Fatal(err)
	}
	muc1 := func() host.Finding {
		list := Doctor(t.Context(), DoctorOptions{File: file, BPFDir: t.TempDir()})
		i := slices.IndexFunc(list, func(f host.Finding) bool { return f.Name == "tunnel-port/muc1/udp-4501" })
		if i < 0 {
			t.Fatalf("nothing is told of the port: %+v", list)
		}
		return list[i]
	}
	if f := muc1(); f.Status != host.StatusOK {
		t.Errorf("a free port: %+v", f)
	}

	answer, tells, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	cmd := exec.Command("/proc/self/exe", ipsec.HolderVerb, filepath.Join(t.TempDir(), "lock"), "198.18.0.2:4501")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{tells}, t.Output()
	ns.Start(t, cmd)
	tells.Close()
	if said, err := io.ReadAll(answer); err != nil || string(said) != "ready" {
		t.Fatalf("the holder says %q, %v", said, err)
	}
	if f := muc1(); f.Status != host.StatusOK {
		t.Errorf("held by our own process: %+v", f)
	}

	nstest.Kill(cmd)
	other, err := net.ListenPacket("udp4", "198.18.0.2:4501")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if f := muc1(); f.Status != host.StatusMissing || !strings.Contains(f.Detail, "holds UDP 198.18.0.2:4501") || !strings.Contains(f.Detail, fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("held by another: %+v", f)
	}
}
