package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/control/compile"
)

// metrics is the subsystem that serves Prometheus. Its state is the address that it listens on, so that a port in use
// fails the apply and goes back like anything else.
type metrics struct {
	log     *slog.Logger
	handler http.Handler

	mu       sync.Mutex
	at       netip.AddrPort // invalid: nowhere
	listener net.Listener
	server   *http.Server
}

// metricsOp starts or stops listening.
type metricsOp struct {
	at     netip.AddrPort
	listen bool
}

func (o metricsOp) String() string {
	if o.listen {
		return "serve metrics on " + o.at.String()
	}
	return "stop serving metrics on " + o.at.String()
}

// Teardown is false for both: the old listener must be gone before one of the same port can be made.
func (o metricsOp) Teardown() bool { return false }

func newMetrics(d *Daemon, log *slog.Logger) *metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{d}, collectors.NewGoCollector())
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}))
	return &metrics{log: log, handler: mux}
}

// Observe returns where it listens now.
func (m *metrics) Observe(context.Context) (compile.Telemetry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return compile.Telemetry{Metrics: m.at}, nil
}

// Diff stops before it starts.
func (m *metrics) Diff(have, want compile.Telemetry) []metricsOp {
	var ops []metricsOp
	if have == want {
		return nil
	}
	if have.Metrics.IsValid() {
		ops = append(ops, metricsOp{at: have.Metrics})
	}
	if want.Metrics.IsValid() {
		ops = append(ops, metricsOp{at: want.Metrics, listen: true})
	}
	return ops
}

// Apply does one step.
func (m *metrics) Apply(_ context.Context, op metricsOp) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !op.listen {
		m.stop()
		return nil
	}
	if m.at == op.at {
		return nil
	}
	l, err := net.Listen("tcp", op.at.String())
	if err != nil {
		return fmt.Errorf("telemetry.metrics: %w: free the port, or name another", err)
	}
	m.server = &http.Server{Handler: m.handler, ReadHeaderTimeout: 5 * time.Second}
	m.at, m.listener = op.at, l
	server := m.server
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			m.log.Error("metrics", "error", err)
		}
	}()
	return nil
}

func (m *metrics) stop() {
	if m.server != nil {
		_ = m.server.Close()
		_ = m.listener.Close() // the server does not know it before its goroutine runs
	}
	m.server, m.listener, m.at = nil, nil, netip.AddrPort{}
}

func (m *metrics) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stop()
}
