package wireguard

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/path"
	"sluice/crypto/wireguard/child"
)

// manyPeers is the size that the targets are about: an apply within 2 s, a change within 50 ms, idle within 5 % of a core.
const manyPeers = 1000

// crowd is a tunnel with many peers, none of which answers.
func crowd(t testing.TB, keepalive time.Duration) State {
	t.Helper()
	key := newKey(t, t.TempDir(), "own")
	w := Tunnel{
		Name: "fra1", Backend: Userspace, PrivateKeyFile: key.file, PublicKey: key.public, ListenPort: port, MTU: 1420,
		Addresses: list("10.200.0.0/31"),
	}
	for i := range manyPeers {
		secret, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 20 + byte(i>>8), byte(i), 0}), 24)
		w.Peers = append(w.Peers, Peer{
			Name: fmt.Sprint("peer-", i), PublicKey: secret.PublicKey().String(), Keepalive: keepalive,
			Endpoint: addrPort("198.18.0.2:51820"), AllowedIPs: []netip.Prefix{prefix},
		})
		w.Routes = append(w.Routes, path.Route{Prefix: prefix, Metric: 100})
	}
	slices.SortFunc(w.Peers, func(a, b Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
	return State{Tunnels: []Tunnel{w}}
}

// manyDriver is a driver in a namespace of its own, with an underlay on which nobody answers.
func manyDriver(t testing.TB) (*Driver, *space) {
	t.Helper()
	s, other := newSpace(t), newSpace(t)
	s.connect(t, other, "up0", "198.18.0.1/24", "up1", "198.18.0.2/24")
	return s.driver(t), s
}

// driver is one more of the space.
func (s *space) driver(t testing.TB) (d *Driver) {
	t.Helper()
	s.Do(t, func() (err error) {
		d, err = New(slog.New(slog.DiscardHandler), Options{StateDir: s.stateDir, Command: []string{os.Args[0], child.Verb}})
		return err
	})
	t.Cleanup(d.Stop)
	return d
}

// BenchmarkApplyOfAThousandPeers reports beside the time the CPU of driver and process, in seconds: the latter's is that of
// a thousand beginnings of handshakes as well, which go on behind the apply.
func BenchmarkApplyOfAThousandPeers(b *testing.B) {
	d, s := manyDriver(b)
	want := crowd(b, 25*time.Second)
	var own, child, n float64
	for b.Loop() {
		before := cpu(b, os.Getpid())
		if _, err := converge(context.Background(), d, want); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		own += cpu(b, os.Getpid()) - before
		child += cpu(b, s.process(b, "fra1"))
		n++
		b.ReportMetric(own/n, "driver-s/op")
		b.ReportMetric(child/n, "child-s/op")
		if err := d.Down(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkChangeOfOneOfAThousandPeers(b *testing.B) {
	d, _ := manyDriver(b)
	want := crowd(b, 0)
	if _, err := converge(context.Background(), d, want); err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		p := &want.Tunnels[0].Peers[n%manyPeers]
		p.Keepalive = time.Duration(1+n%7) * time.Second
		ops, err := converge(context.Background(), d, want)
		if err != nil || len(ops) != 1 {
			b.Fatal(ops, err)
		}
	}
}

// BenchmarkLossOfOneOfAThousandPeers is the time from the loss to the route that is gone.
func BenchmarkLossOfOneOfAThousandPeers(b *testing.B) {
	d, _ := manyDriver(b)
	want := crowd(b, 0)
	ctx := context.Background()
	if _, err := converge(ctx, d, want); err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		if err := d.Withhold(ctx, map[string][]string{"fra1": {want.Tunnels[0].Peers[n%manyPeers].PublicKey}}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := d.Withhold(ctx, nil); err != nil {
			b.Fatal(err)
		}
		if ops, err := converge(ctx, d, want); err != nil || len(ops) != 1 {
			b.Fatal(ops, err)
		}
		b.StartTimer()
	}
}

// BenchmarkIdleTunnel reports the CPU of driver and process, with the status asked every second, in percent of a core,
// and the process's resident memory.
func BenchmarkIdleTunnel(b *testing.B) {
	for name, c := range map[string]struct {
		peers     int
		keepalive time.Duration
		reached   bool // the endpoint is known, and handshakes are tried in vain
	}{"one": {peers: 1}, "thousand": {peers: manyPeers}, "thousand-in-vain": {manyPeers, 25 * time.Second, true}} {
		b.Run(name, func(b *testing.B) {
			d, s := manyDriver(b)
			want := crowd(b, c.keepalive)
			want.Tunnels[0].Peers, want.Tunnels[0].Routes = want.Tunnels[0].Peers[:c.peers], nil
			for i := range want.Tunnels[0].Peers {
				if !c.reached {
					want.Tunnels[0].Peers[i].Endpoint = netip.AddrPort{}
				}
			}
			if _, err := converge(context.Background(), d, want); err != nil {
				b.Fatal(err)
			}
			pid := s.process(b, "fra1")
			for b.Loop() {
				const seconds = 20
				child, own := cpu(b, pid), cpu(b, os.Getpid())
				for range seconds {
					if _, err := d.Status(context.Background()); err != nil {
						b.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				b.ReportMetric(100*(cpu(b, pid)-child)/seconds, "%child")
				b.ReportMetric(100*(cpu(b, os.Getpid())-own)/seconds, "%driver")
				b.ReportMetric(resident(b, pid), "MB")
			}
		})
	}
}

// cpu is what a process has used, in seconds.
func cpu(t testing.TB, pid int) float64 {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// utime and stime are fields 14 and 15, in ticks of 10 ms; the second one is in parentheses.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks float64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return ticks / 100
}

func resident(t testing.TB, pid int) float64 {
	t.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(statm))[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * float64(unix.Getpagesize()) / (1 << 20)
}
