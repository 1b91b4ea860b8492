package daemon

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"sluice/control/compile"
	"sluice/xdp/abi"
)

func texts(ops []metricsOp) (out []string) {
	for _, op := range ops {
		if op.Teardown() {
			out = append(out, "teardown: "+op.String())
			continue
		}
		out = append(out, op.String())
	}
	return out
}

func at(s string) compile.Telemetry {
	if s == "" {
		return compile.Telemetry{}
	}
	return compile.Telemetry{Metrics: netip.MustParseAddrPort(s)}
}

func TestMetricsDiff(t *testing.T) {
	for _, c := range []struct {
		have, want string
		ops        []string
	}{
		{"", "", nil},
		{"127.0.0.1:1", "127.0.0.1:1", nil},
		{"", "127.0.0.1:1", []string{"serve metrics on 127.0.0.1:1"}},
		{"127.0.0.1:1", "", []string{"stop serving metrics on 127.0.0.1:1"}},
		// Stopped first: the new address may hold the same port.
		{"127.0.0.1:1", "0.0.0.0:1", []string{"stop serving metrics on 127.0.0.1:1", "serve metrics on 0.0.0.0:1"}},
	} {
		if got := texts((&metrics{}).Diff(at(c.have), at(c.want))); !slices.Equal(got, c.ops) {
			t.Errorf("from %q to %q: %q, want %q", c.have, c.want, got, c.ops)
		}
	}
}

var nextPort atomic.Uint32

// freePort finds a port that nobody listens on now. It is below those that the kernel gives to whoever asks for any, so that nobody
// gets it meanwhile, and not one that another call found.
func freePort(t *testing.T) string {
	t.Helper()
	const first, ports = 20_000, 12_000
	nextPort.CompareAndSwap(0, rand.Uint32N(ports)) // other processes look, too
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+nextPort.Add(1)%ports))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("100 ports are in use")
	return ""
}

// bring applies what leads from what is observed to want.
func bring(t *testing.T, m *metrics, want compile.Telemetry) error {
	t.Helper()
	have, err := m.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range m.Diff(have, want) {
		if err := m.Apply(t.Context(), op); err != nil {
			return err
		}
		if err := m.Apply(t.Context(), op); err != nil { // a step may come twice
			return fmt.Errorf("twice: %w", err)
		}
	}
	return nil
}

func observed(t *testing.T, m *metrics, want compile.Telemetry) {
	t.Helper()
	if have, err := m.Observe(t.Context()); err != nil || have != want {
		t.Errorf("it serves at %v (%v), want %v", have.Metrics, err, want.Metrics)
	}
}

func scrape(t *testing.T, address string) (string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %s: %s", response.Status, body)
	}
	return string(body), err
}

func TestMetricsOfADaemonWithoutARevision(t *testing.T) {
	d := idle(t)
	first, second := freePort(t), freePort(t)
	for _, address := range []string{first, second} {
		if err := bring(t, d.metrics, at(address)); err != nil {
			t.Fatal(err)
		}
		observed(t, d.metrics, at(address))
		text, err := scrape(t, address)
		for _, line := range []string{"sluice_up 1\n", "sluice_revision 0\n"} {
			if err != nil || !strings.Contains(text, line) {
				t.Errorf("%q is not among the metrics (%v):\n%s", line, err, text)
			}
		}
	}
	if _, err := scrape(t, first); err == nil {
		t.Errorf("%s still answers", first)
	}
	if err := bring(t, d.metrics, compile.Telemetry{}); err != nil {
		t.Fatal(err)
	}
	observed(t, d.metrics, compile.Telemetry{})
	if _, err := scrape(t, second); err == nil {
		t.Errorf("%s still answers", second)
	}
}

func TestAPortInUseFailsTheStepAndSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	m := idle(t).metrics
	was := freePort(t)
	if err := bring(t, m, at(was)); err != nil {
		t.Fatal(err)
	}
	err = bring(t, m, at(taken))
	want := "telemetry.metrics: listen tcp " + taken + ": bind: address already in use: free the port, or name another"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	observed(t, m, compile.Telemetry{}) // and the engine goes back from there
	if err := bring(t, m, at(was)); err != nil {
		t.Errorf("going back: %v", err)
	}
	m.close()
	observed(t, m, compile.Telemetry{})
}

func TestTheHelpOfPacketsNamesEveryFate(t *testing.T) {
	for f := abi.FatePass; !strings.HasPrefix(f.String(), "fate-"); f++ {
		if !strings.Contains(descPackets.String(), " "+f.String()) {
			t.Errorf("%s is not in %s", f, descPackets)
		}
	}
}
