package slots

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxImage bounds what is read of an image: the ESP has 512 MiB for two.
const maxImage = 256 << 20

// fetchTime is for all of a download, headersTime for the server to begin.
const (
	fetchTime   = 30 * time.Minute
	headersTime = 30 * time.Second
)

// spared is what a download leaves free on the data partition.
const spared = 16 << 20

// candidate is an image that was read once, from its first byte to its last.
type candidate struct {
	name      string   // to be shown: a URL without what may be secret in it
	file      *os.File // to be read; nothing of it is in a directory where it was fetched
	size      int64
	digest    []byte // SHA-512
	signature string // "": there is none
	most      int64  // bytes that an image may have
}

func (c *candidate) close() { _ = c.file.Close() }

// source says how an image is taken in.
type source struct {
	dir    string // where what is fetched lies for a while, in a file without a name
	most   int64  // bytes that an image may have
	signed bool   // without a signature it is refused, before it is read
}

// obtain opens a file, or fetches a URL.
func obtain(ctx context.Context, from string, s source) (*candidate, error) {
	if u, err := url.Parse(from); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		return fetch(ctx, u, s)
	} else if err == nil && strings.Contains(from, "://") {
		return nil, fmt.Errorf("%s: images come by https or http, or as a file", shown(u))
	} else if strings.Contains(from, "://") {
		return nil, errors.New("the image's URL is not understood: https://HOST/PATH is wanted")
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	c := &candidate{name: from, file: f, most: s.most}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", from)
	}
	if err == nil && s.signed {
		c.signature, err = readSignature(from + ".sig")
	}
	if err == nil {
		err = c.read(f, io.Discard)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// read takes size and digest of what it copies.
func (c *candidate) read(from io.Reader, to io.Writer) error {
	digest := sha512.New()
	n, err := io.Copy(io.MultiWriter(to, digest), io.LimitReader(from, c.most+1))
	if err != nil {
		return err
	}
	if n > c.most {
		return tooLong(c.most)
	}
	c.size, c.digest = n, digest.Sum(nil)
	return nil
}

func readSignature(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no %s: %w; nothing was written", path, ErrUnsigned)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := io.ReadAll(io.LimitReader(f, maxSignature))
	return string(line), err
}

// shown is a URL for messages: passwords and what stands behind the question mark may let somebody in.
func shown(u *url.URL) string {
	plain := *u
	plain.RawQuery, plain.ForceQuery, plain.Fragment = "", false, ""
	return plain.Redacted()
}

// fetch brings an image and its signature here. Where the connection ends early, the length tells, and the signature would.
func fetch(ctx context.Context, u *url.URL, s source) (*candidate, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTime, fmt.Errorf("it took longer than %v", fetchTime))
	defer cancel()
	transport := http.DefaultTransport.(*http.Transport).Clone() // proxies from the environment
	transport.ResponseHeaderTimeout = headersTime
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	beside := *u
	beside.Path, beside.RawPath = u.Path+".sig", ""
	var line strings.Builder
	if s.signed {
		err := get(ctx, client, &beside, func(r *http.Response) error {
			_, err := io.Copy(&line, io.LimitReader(r.Body, maxSignature))
			return err
		})
		if errors.Is(err, errNotThere) {
			err = fmt.Errorf("%w: the image is %w; nothing was written", err, ErrUnsigned)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.dir, ".fetched-")
	if err != nil {
		return nil, err
	}
	c := &candidate{name: shown(u), file: f, signature: line.String(), most: s.most}
	// Without a name: whatever ends us, its room is free again.
	err = os.Remove(f.Name())
	if err == nil {
		err = get(ctx, client, u, func(r *http.Response) error {
			if err := s.takes(r.ContentLength); err != nil {
				return err
			}
			return c.read(r.Body, f)
		})
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// takes refuses what the server says is too long, before it is here. The daemon keeps its state on the same partition.
func (s source) takes(size int64) error {
	if size > s.most {
		return tooLong(s.most)
	}
	var there unix.Statfs_t
	if err := unix.Statfs(s.dir, &there); err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	if free := int64(there.Bavail)*there.Bsize - spared; size > free {
		return fmt.Errorf("it has %d MiB, and %s has room for %d: bring it as a file", size>>20, s.dir, max(0, free)>>20)
	}
	return nil
}

func tooLong(most int64) error {
	return fmt.Errorf("it has more than %d MiB, which no image has", most>>20)
}

// errNotThere: the server has no such file.
var errNotThere = errors.New("not found")

func get(ctx context.Context, client *http.Client, u *url.URL, read func(*http.Response) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		var whole *url.Error // quotes the URL
		if errors.As(err, &whole) {
			err = whole.Err
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("fetching %s: %w", shown(u), err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%s: %w", shown(u), errNotThere)
	default:
		return fmt.Errorf("%s: the server answered %s", shown(u), response.Status)
	}
	if err := read(response); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("%s: %w", shown(u), err)
	}
	return nil
}
