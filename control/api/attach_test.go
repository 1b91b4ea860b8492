package api

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
)

func request() ApplyRequest {
	return ApplyRequest{ConfirmSeconds: 2, Message: "m", Candidate: Candidate{Name: "f", Bytes: []byte("a\n{}\n"), Files: []File{
		{Path: "empty", Contents: []byte{}}, {Path: "large", Contents: bytes.Repeat([]byte("0123456789abcdef"), 1<<16)}, {Path: "line", Contents: []byte("\n")},
	}}}
}

func TestFilesArriveBehindARequestAsTheyAre(t *testing.T) {
	in, want := request(), request()
	body, size, err := attach(&in)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := io.ReadAll(body)
	if err != nil || int64(len(sent)) != size {
		t.Fatalf("%d bytes were sent, %d announced, %v", len(sent), size, err)
	}
	var got ApplyRequest
	if err := detach(bytes.NewReader(sent), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("another request arrived")
	}
	for _, n := range []int{0, 1, len(sent) / 2, len(sent) - 1} {
		if err := detach(bytes.NewReader(sent[:n]), &ApplyRequest{}); err == nil {
			t.Errorf("%d of %d bytes are a request", n, len(sent))
		}
	}
	if err := detach(bytes.NewReader(append(sent, 0)), &ApplyRequest{}); err == nil {
		t.Error("a byte too many was not seen")
	}
}

func TestAnEnvelopeThatLiesIsRefused(t *testing.T) {
	for line, want := range map[string]string{
		`{"request": {"name": "x"}, "sizes": []}`:                            "0 sizes for 1 files",
		`{"request": {"name": "x"}, "sizes": [-1]}`:                          "impossible size",
		`{"request": {"name": "x"}, "sizes": [9223372036854775807]}`:         "impossible size",
		`{"request": {"name": "x"}, "sizes": [9]}`:                           "after 0 of 9 bytes",
		`{"request": {"name": "x", "bites": 1}, "sizes": [0]}`:               `unknown field "bites"`,
		`{"request": {"name": "x", "files": [{"path": "a"}]}, "sizes": [0]}`: "1 sizes for 2 files",
		`{"request": {"name": "x"}, "sizes": [0], "and": "more"}`:            `unknown field "and"`,
		`{"request": null, "sizes": [0]}`:                                    "no request",
		`[]`:                                                                 "cannot unmarshal array",
	} {
		if err := detach(strings.NewReader(line+"\n"), &Candidate{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}
