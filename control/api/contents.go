package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// contentsHeader names the lengths of what stands behind the JSON of a request: the contents of its files, as they are.
// As base64 in JSON, which the server takes as well, 30 MB of them cost more than reading them.
const contentsHeader = "Sluice-Contents"

// carrier is a request with contents of files.
type carrier interface{ contents() []*[]byte }

func (c *Candidate) contents() []*[]byte {
	out := []*[]byte{&c.Bytes}
	for i := range c.Files {
		out = append(out, &c.Files[i].Contents)
	}
	return out
}

func (r *ApplyRequest) contents() []*[]byte { return r.Candidate.contents() }

// own makes changes to the list of files nobody else's.
func (c *Candidate) own() { c.Files = slices.Clone(c.Files) }

// postContents is post for a carrier, whose contents it takes out.
func postContents[T any](ctx context.Context, c *Client, path string, in carrier) (T, error) {
	var out T
	body := []io.Reader{nil}
	var lengths []string
	for _, contents := range in.contents() {
		body = append(body, bytes.NewReader(*contents))
		lengths = append(lengths, strconv.Itoa(len(*contents)))
		*contents = nil
	}
	head, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	body[0] = bytes.NewReader(head)
	header := http.Header{contentsHeader: {strings.Join(lengths, ",")}}
	return out, c.do(ctx, http.MethodPost, path, header, io.MultiReader(body...), &out)
}

// readContents puts what stands behind the JSON of a request into its place.
func readContents(lengths string, most int64, body io.Reader, in any) error {
	if lengths == "" {
		return nil
	}
	c, ok := in.(carrier)
	list := strings.Split(lengths, ",")
	if !ok || len(list) != len(c.contents()) {
		return fmt.Errorf("%s: %s: not the lengths of its files", contentsHeader, lengths)
	}
	for i, contents := range c.contents() {
		n, err := strconv.ParseInt(list[i], 10, 64)
		if err != nil || n < 0 || n > most {
			return fmt.Errorf("%s: %s is not a length", contentsHeader, list[i])
		}
		*contents = make([]byte, n)
		if _, err := io.ReadFull(body, *contents); err != nil {
			return fmt.Errorf("contents of %d bytes: %w", n, err)
		}
	}
	return nil
}
