package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// attached is the media type of a request whose files stand behind it as they are: one line of JSON, an envelope, then
// the contents one after the other. In JSON they would be base64, which costs a second for what a large set file holds.
const attached = "application/vnd.sluice.attached"

// envelope is that line: a request without its contents, and their sizes in bytes.
type envelope[T any] struct {
	Request T       `json:"request"`
	Sizes   []int64 `json:"sizes"` // FILE, then its set files
}

// sealed is a request that is read and written this way: contents are pointers to where its files stand.
type sealed interface{ contents() []*[]byte }

func (c *Candidate) contents() []*[]byte {
	out := []*[]byte{&c.Bytes}
	for i := range c.Files {
		out = append(out, &c.Files[i].Contents)
	}
	return out
}

func (r *ApplyRequest) contents() []*[]byte { return r.Candidate.contents() }

// attach returns the body of a request. in must be a copy: its contents are taken out.
func attach[T any, P interface {
	*T
	sealed
}](in P) (body io.Reader, size int64, err error) {
	var parts []io.Reader
	var sizes []int64
	for _, at := range in.contents() {
		parts = append(parts, bytes.NewReader(*at))
		sizes = append(sizes, int64(len(*at)))
		size += int64(len(*at))
		*at = nil
	}
	line, err := json.Marshal(envelope[P]{in, sizes})
	if err != nil {
		return nil, 0, err
	}
	line = append(line, '\n')
	return io.MultiReader(append([]io.Reader{bytes.NewReader(line)}, parts...)...), size + int64(len(line)), nil
}

// detach reads what attach wrote. Nothing larger than what came is allocated.
func detach[T any, P interface {
	*T
	sealed
}](body io.Reader, in P) error {
	r := bufio.NewReaderSize(body, 1<<16)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the line in front of the files: %w", err)
	}
	var e envelope[P]
	e.Request = in
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return err
	}
	if e.Request == nil {
		return errors.New("no request")
	}
	to := in.contents()
	if len(to) != len(e.Sizes) {
		return fmt.Errorf("%d sizes for %d files", len(e.Sizes), len(to))
	}
	for i, size := range e.Sizes {
		var b bytes.Buffer
		if size < 0 || size > maxBody {
			return errors.New("a file of an impossible size")
		}
		b.Grow(int(min(size, 64<<20)) + bytes.MinRead)
		if n, err := io.Copy(&b, io.LimitReader(r, size)); err != nil || n != size {
			return fmt.Errorf("a file ends after %d of %d bytes: %w", n, size, errors.Join(io.ErrUnexpectedEOF, err))
		}
		*to[i] = b.Bytes()
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("more than the files that were announced")
	}
	return nil
}

// decode reads a request strictly, with its files in it or behind it.
func decode(r *http.Request, in any) error {
	if r.Header.Get("Content-Type") == attached {
		switch in := in.(type) {
		case *Candidate:
			return detach(r.Body, in)
		case *ApplyRequest:
			return detach(r.Body, in)
		}
		return errors.New("this request has no files")
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	return d.Decode(in)
}
