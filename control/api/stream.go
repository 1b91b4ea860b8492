package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
)

const (
	// maxEvent bounds one line of a stream.
	maxEvent = 1 << 20
	// maxStall is how long a reader may take none of it.
	maxStall = 10 * time.Second
)

// follow calls each for every line of a stream, until ctx ends, each returns an error, or the daemon ends
// (ErrUnreachable).
func follow[T any](ctx context.Context, c *Client, method, path string, body io.Reader, each func(T) error) error {
	response, err := c.send(ctx, method, path, nil, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		var one T
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return fmt.Errorf("the daemon's answer is not understood (is it of another version?): %w", err)
		}
		if err := each(one); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET): // in good order, or killed
		return fmt.Errorf("%w any more: it has ended", ErrUnreachable)
	default:
		return c.unreachable(err)
	}
}

// stream writes lines of JSON as run tells of them, until the client goes or the daemon ends.
func stream[T any](s *Server, w http.ResponseWriter, r *http.Request, run func(ctx context.Context, each func(T) error) error) {
	// A request's context outlives the daemon's (Run), so that answers are given; a stream has no such answer.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	control := http.NewResponseController(w)
	defer context.AfterFunc(s.life, func() {
		cancel()
		_ = control.SetWriteDeadline(time.Now()) // a reader that does not read holds nobody up
	})()
	begun := false
	lines := json.NewEncoder(w)
	err := run(ctx, func(one T) error {
		if !begun {
			w.Header().Set("Content-Type", "application/x-ndjson")
			begun = true
		}
		if s.life.Err() == nil { // else it is set, to now
			_ = control.SetWriteDeadline(time.Now().Add(maxStall))
		}
		if err := lines.Encode(one); err != nil {
			return err
		}
		return control.Flush()
	})
	if err != nil && !begun {
		s.write(w, nil, err)
	} else if err != nil && ctx.Err() == nil {
		s.log.Warn("a stream ended", "path", r.URL.Path, "error", err)
	}
}
