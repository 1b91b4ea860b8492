package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"syscall"
)

// ErrUnreachable: no daemon answers on the socket (exit code 3).
var ErrUnreachable = errors.New("could not reach the daemon")

// Client speaks to a daemon. It has no state but its connections.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client for the socket at path.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &Client{socket: path, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Plan asks what an apply would do.
func (c *Client) Plan(ctx context.Context, in Candidate) (Plan, error) {
	in.Files = slices.Clone(in.Files)
	return send[Plan](ctx, c, "plan", &in)
}

// Apply makes a candidate the revision of the machine.
func (c *Client) Apply(ctx context.Context, in ApplyRequest) (Result, error) {
	in.Candidate.Files = slices.Clone(in.Candidate.Files)
	return send[Result](ctx, c, "apply", &in)
}

// Confirm keeps the pending revision.
func (c *Client) Confirm(ctx context.Context) (Confirmed, error) {
	return post[Confirmed](ctx, c, "confirm", struct{}{})
}

// Rollback goes back to an earlier revision.
func (c *Client) Rollback(ctx context.Context, in RollbackRequest) (Result, error) {
	return post[Result](ctx, c, "rollback", in)
}

// History lists the revisions, oldest first.
func (c *Client) History(ctx context.Context) ([]Revision, error) {
	return get[[]Revision](ctx, c, "history")
}

// Config returns a revision's files; 0 is the live one.
func (c *Client) Config(ctx context.Context, revision int) (StoredConfig, error) {
	return get[StoredConfig](ctx, c, fmt.Sprintf("config/%d", revision))
}

// Show reads a noun; T fits the noun or is json.RawMessage.
func Show[T any](ctx context.Context, c *Client, noun string) (T, error) {
	return get[T](ctx, c, "show/"+noun)
}

// Explain asks what the live programs do with a packet.
func (c *Client) Explain(ctx context.Context, in ExplainRequest) (Explanation, error) {
	return post[Explanation](ctx, c, "explain", in)
}

// Down gives the machine back and ends the daemon.
func (c *Client) Down(ctx context.Context) error { return order(ctx, c, "down") }

func post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var out T
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	err = c.do(ctx, http.MethodPost, path, bytes.NewReader(body), &out)
	return out, err
}

// send is post for a request with files. It takes the contents out of in, which must be a copy.
func send[T, R any, P interface {
	*R
	sealed
}](ctx context.Context, c *Client, path string, in P) (T, error) {
	var out T
	body, size, err := attach[R](in)
	if err != nil {
		return out, err
	}
	err = c.do(ctx, http.MethodPost, path, files{body, size}, &out)
	return out, err
}

// files is a body of type attached.
type files struct {
	io.Reader
	size int64
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	err := c.do(ctx, http.MethodGet, path, nil, &out)
	return out, err
}

// order is a request without words and an answer without content.
func order(ctx context.Context, c *Client, path string) error {
	_, err := post[struct{}](ctx, c, path, struct{}{})
	return err
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader, out any) error {
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return c.unreachable(err)
		}
		return fmt.Errorf("the daemon's answer is not understood (is it of another version?): %w", err)
	}
	return nil
}

// send returns an answer that is 200, with its body still to be read and closed.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://sluice/v1/"+path, body)
	if err != nil {
		return nil, err
	}
	if f, ok := body.(files); ok {
		request.ContentLength = f.size
		request.Header.Set("Content-Type", attached)
	}
	response, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, c.unreachable(err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		return nil, failure(response)
	}
	return response, nil
}

// failure reads an answer that is not 200.
func failure(response *http.Response) error {
	f := &Failure{}
	if err := json.NewDecoder(response.Body).Decode(f); err != nil || f.Message == "" {
		return fmt.Errorf("the daemon answered %s", response.Status)
	}
	return f
}

// unreachable says in plain words why no answer came.
func (c *Client) unreachable(err error) error {
	why := err.Error()
	var errno syscall.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		why = "it is not running, or has another --socket"
	case errors.Is(err, fs.ErrPermission):
		why = "only root may open it; use sudo"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		why = "it ended before it answered"
	case errors.As(err, &errno):
		why = errno.Error()
	}
	return fmt.Errorf("%w on %s: %s", ErrUnreachable, c.socket, why)
}
