package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// maxBody bounds a request: a file of 16 MiB and its set files, in base64.
const maxBody = 512 << 20

// maxSocketPath is what sun_path of sockaddr_un holds beside its final zero.
const maxSocketPath = 107

// Server serves a Backend on a unix socket. It is a Task: Run, Ready, String.
type Server struct {
	path    string
	backend Backend
	log     *slog.Logger
	ready   chan struct{}
	life    context.Context // of Run: streams end with it
	maxBody int64           // bytes of a request

	listener net.Listener // made by Listen, taken by Run
}

// NewServer makes a server for the socket at path; nothing happens before Run.
func NewServer(path string, b Backend, log *slog.Logger) *Server {
	return &Server{path: path, backend: b, log: log, ready: make(chan struct{}), maxBody: maxBody}
}

func (s *Server) String() string { return "api" }

// Ready is closed once the socket answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Listen makes the socket, so that a path that cannot be had is known before anything else is done. Who connects from
// now on waits until Run answers.
func (s *Server) Listen() error {
	l, err := s.listen()
	s.listener = l
	return err
}

// Close gives up a socket that Run was never called for.
func (s *Server) Close() {
	if s.listener != nil {
		_ = os.Remove(s.path)
		_ = s.listener.Close()
		s.listener = nil
	}
}

// Run serves until ctx ends. The socket is 0600: who may open it may do everything.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	l := s.listener
	s.listener = nil
	s.life = ctx
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelError),
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) }}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	close(s.ready)
	select {
	case err := <-ended:
		return fmt.Errorf("api: %w", err)
	case <-ctx.Done():
	}
	// While we still listen the path is surely ours: nobody takes a socket that answers.
	err := os.Remove(s.path)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	// An answer under way, such as that of `sluice down`, is still given.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if server.Shutdown(last) != nil {
		err = errors.Join(err, server.Close())
	}
	return err
}

// listen makes the socket. A leftover of a daemon that was killed is removed: the lock on the state directory says
// that no other daemon is alive.
func (s *Server) listen() (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if info, err := os.Lstat(s.path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("api: %s is there and is no socket: give another --socket", s.path)
	}
	if c, err := net.Dial("unix", s.path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("api: another process answers on %s: give this instance a --socket of its own", s.path)
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("api: %w", err)
	}
	// Bound inside a directory that others cannot enter, then moved: there is no moment with wider permissions.
	private, err := os.MkdirTemp(filepath.Dir(s.path), ".sluice-")
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	defer os.RemoveAll(private)
	staged := filepath.Join(private, "s")
	if n := max(len(staged), len(s.path)); n > maxSocketPath {
		return nil, fmt.Errorf("api: the path %s is too long by %d bytes for a socket: give a shorter --socket", s.path, n-maxSocketPath)
	}
	l, err := net.Listen("unix", staged)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(staged, 0o600), os.Rename(staged, s.path)); err != nil {
		return nil, errors.Join(fmt.Errorf("api: %w", err), l.Close())
	}
	return l, nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	b := s.backend
	mux.Handle("POST /v1/plan", answer(s, func(ctx context.Context, c Candidate) (any, error) { return b.Plan(ctx, c) }))
	mux.Handle("POST /v1/apply", answer(s, func(ctx context.Context, r ApplyRequest) (any, error) { return b.Apply(ctx, r) }))
	mux.Handle("POST /v1/confirm", answer(s, func(ctx context.Context, _ struct{}) (any, error) { return b.Confirm(ctx) }))
	mux.Handle("POST /v1/rollback", answer(s, func(ctx context.Context, r RollbackRequest) (any, error) { return b.Rollback(ctx, r) }))
	mux.Handle("POST /v1/explain", answer(s, func(ctx context.Context, r ExplainRequest) (any, error) { return b.Explain(ctx, r) }))
	mux.Handle("POST /v1/down", answer(s, func(ctx context.Context, _ struct{}) (any, error) { return struct{}{}, b.Down(ctx) }))
	mux.Handle("POST /v1/ban", answer(s, func(ctx context.Context, r BanRequest) (any, error) { return b.Ban(ctx, r) }))
	mux.Handle("POST /v1/unban", answer(s, func(ctx context.Context, r UnbanRequest) (any, error) { return b.Unban(ctx, r) }))
	mux.Handle("POST /v1/drain", answer(s, func(ctx context.Context, r DrainRequest) (any, error) { return b.Drain(ctx, r) }))
	mux.Handle("POST /v1/undrain", answer(s, func(ctx context.Context, _ struct{}) (any, error) { return b.Undrain(ctx) }))
	mux.Handle("POST /v1/workload/add", answer(s, func(ctx context.Context, r WorkloadAdd) (any, error) { return b.AddWorkloads(ctx, r) }))
	mux.Handle("POST /v1/workload/del", answer(s, func(ctx context.Context, r WorkloadDelete) (any, error) { return b.DeleteWorkloads(ctx, r) }))
	mux.Handle("POST /v1/capture/end", answer(s, func(ctx context.Context, r CaptureEnd) (any, error) { return struct{}{}, b.EndCapture(ctx, r) }))
	mux.HandleFunc("POST /v1/capture", s.capture)
	mux.Handle("POST /v1/clear/counters", answer(s, func(ctx context.Context, r ClearCountersRequest) (any, error) { return b.ClearCounters(ctx, r) }))
	mux.Handle("POST /v1/clear/flows", answer(s, func(ctx context.Context, r ClearFlowsRequest) (any, error) { return b.ClearFlows(ctx, r) }))
	mux.Handle("POST /v1/clear/bgp", answer(s, func(ctx context.Context, r ClearBGPRequest) (any, error) { return b.ClearBGP(ctx, r) }))
	mux.Handle("POST /v1/bgp/neighbor", answer(s, func(ctx context.Context, r NeighborRequest) (any, error) { return b.Neighbor(ctx, r) }))
	mux.Handle("POST /v1/bans", answer(s, func(ctx context.Context, r BansRequest) (any, error) { return b.Bans(ctx, r) }))
	mux.Handle("POST /v1/flowspec", answer(s, func(ctx context.Context, r FiltersRequest) (any, error) { return b.Filters(ctx, r) }))
	mux.Handle("POST /v1/routes", answer(s, func(ctx context.Context, r RoutesRequest) (any, error) { return b.Routes(ctx, r) }))
	mux.Handle("POST /v1/flows", answer(s, func(ctx context.Context, r FlowsRequest) (any, error) { return b.Flows(ctx, r) }))
	mux.Handle("POST /v1/tunnel/restart", answer(s, func(ctx context.Context, r RestartRequest) (any, error) { return b.RestartTunnel(ctx, r) }))
	mux.Handle("POST /v1/key/rotate", answer(s, func(ctx context.Context, r RotateRequest) (any, error) { return b.RotateKey(ctx, r) }))
	mux.Handle("POST /v1/check", answer(s, func(ctx context.Context, r CheckRequest) (any, error) { return b.Check(ctx, r) }))
	mux.HandleFunc("GET /v1/monitor", s.monitor)
	mux.HandleFunc("GET /v1/history", func(w http.ResponseWriter, r *http.Request) {
		v, err := b.History(r.Context())
		s.write(w, v, err)
	})
	mux.HandleFunc("GET /v1/config/{revision}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("revision"))
		if err != nil {
			s.write(w, nil, &Failure{Message: "a revision is a number", Refused: true})
			return
		}
		v, err := b.Config(r.Context(), n)
		s.write(w, v, err)
	})
	mux.HandleFunc("GET /v1/show/{noun}", func(w http.ResponseWriter, r *http.Request) {
		v, err := b.Show(r.Context(), r.PathValue("noun"))
		s.write(w, v, err)
	})
	return mux
}

// answer decodes a request strictly, asks, and writes what came back.
func answer[T any](s *Server, ask func(context.Context, T) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in T
		body := http.MaxBytesReader(w, r.Body, s.maxBody)
		d := json.NewDecoder(body)
		d.DisallowUnknownFields()
		err := d.Decode(&in)
		if err == nil {
			err = readContents(r.Header.Get(contentsHeader), s.maxBody, io.MultiReader(d.Buffered(), body), &in)
		}
		if err != nil {
			message := "the request is not understood: " + err.Error()
			var tooLarge *http.MaxBytesError
			if errors.As(err, &tooLarge) {
				message = fmt.Sprintf("the request is larger than %d MiB", tooLarge.Limit>>20)
			}
			s.write(w, nil, &Failure{Message: message, Refused: true})
			return
		}
		v, err := ask(r.Context(), in)
		s.write(w, v, err)
	})
}

func (s *Server) write(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		var f *Failure
		if !errors.As(err, &f) {
			f = &Failure{Message: err.Error()}
		}
		status := http.StatusInternalServerError
		if f.Refused {
			status = http.StatusUnprocessableEntity
		}
		w.WriteHeader(status)
		v = f
	}
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Warn("an answer was not delivered", "error", err)
	}
}
