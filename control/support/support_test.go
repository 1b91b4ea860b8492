package support

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/tests/bundle"
)

func says(text string) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}
}

func TestABundleHasWhatThereIsAndSaysWhatThereIsNot(t *testing.T) {
	var out bytes.Buffer
	failed, err := Write(t.Context(), &out, Options{Dir: "b", Now: time.Unix(0, 0), Total: time.Minute}, []Entry{
		{"fine.txt", says("fine\n")},
		{"half.txt", func(_ context.Context, w io.Writer) error {
			return errors.Join(says("half\nof a li")(nil, w), errors.New("the daemon is dead"))
		}},
		{"none.txt", func(context.Context, io.Writer) error { return errors.New("no such program") }},
		{"long.txt", says("begin\n" + strings.Repeat("x", MaxEntry))},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := bundle.Unpack(t, out.Bytes())
	if got["b/fine.txt"] != "fine\n" || got["b/half.txt"] != "half\n" || got["b/long.txt"] != "begin\n" || len(got) != 4 {
		t.Errorf("%d files", len(got))
	}
	want := []string{"half.txt: the daemon is dead", "none.txt: no such program", "long.txt: " + errFull.Error()}
	if !slices.Equal(failed, want) {
		t.Errorf("failed: %q", failed)
	}
	for _, w := range []string{"half.txt  INCOMPLETE: the daemon is dead", "none.txt  INCOMPLETE: no such program", "long.txt  INCOMPLETE: cut off", "fine.txt\n"} {
		if !strings.Contains(got["b/MANIFEST.txt"], w) {
			t.Errorf("the manifest does not say %q:\n%s", w, got["b/MANIFEST.txt"])
		}
	}
}

func TestABundleDoesNotWaitForWhoDoesNotEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	never := make(chan struct{})
	defer close(never)
	var out bytes.Buffer
	failed, err := Write(ctx, &out, Options{Dir: "b", Total: time.Minute}, []Entry{
		{"deaf.txt", func(_ context.Context, w io.Writer) error {
			_ = says("so far\nthe key is MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlB")(nil, w)
			cancel()
			<-never
			return nil
		}},
		{"late.txt", says("late")},
	})
	if err != nil || len(failed) != 2 || !strings.Contains(failed[1], "left out") {
		t.Fatalf("%q, %v", failed, err)
	}
	if got := bundle.Unpack(t, out.Bytes()); got["b/deaf.txt"] != "so far\n" || got["b/late.txt"] != "" {
		t.Errorf("%q", got)
	}
}

func TestABundleAsAWholeIsBounded(t *testing.T) {
	var entries []Entry
	for range 2 * MaxTotal / MaxEntry {
		entries = append(entries, Entry{"x.txt", says(strings.Repeat("x", MaxEntry-1) + "\n")})
	}
	var out bytes.Buffer
	failed, err := Write(t.Context(), &out, Options{Dir: "b", Total: time.Minute}, entries)
	if err != nil || len(failed) != MaxTotal/MaxEntry {
		t.Errorf("%d cut off, error %v", len(failed), err)
	}
}

func TestWhatKeyFilesHoldIsInNoFormInABundle(t *testing.T) {
	raw := []byte("0123456789abcdef0123456789ABCDEF")
	const key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY="
	dir := t.TempDir()
	for name, text := range map[string]string{"wg.key": key + "\n", "bgp.key": "correct horse\n", "short": "a\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	planted := []string{key, strings.TrimSuffix(key, "="), string(raw), hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)), "correct horse", hex.EncodeToString([]byte("correct horse"))}
	var out bytes.Buffer
	_, err := Write(t.Context(), &out, Options{Dir: "b", Total: time.Minute,
		Secrets: []string{filepath.Join(dir, "wg.key"), filepath.Join(dir, "bgp.key"), filepath.Join(dir, "short"), filepath.Join(dir, "none"), dir, "/dev/zero"}}, []Entry{
		{"log.txt", says("a log line: " + strings.Join(planted, " and ") + "\n")},
		{"bad.txt", func(context.Context, io.Writer) error { return errors.New("cannot use " + key) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range bundle.Unpack(t, out.Bytes()) {
		for _, p := range planted {
			if strings.Contains(text, p) {
				t.Errorf("%s holds %q", name, p)
			}
		}
		if name == "b/log.txt" && (!strings.Contains(text, "a log line: "+withheld) || strings.Count(text, withheld) != len(planted)) {
			t.Errorf("more was withheld than is secret: %s", text)
		}
	}
}

func TestAPasswordIsKnownInEveryFormItIsWrittenIn(t *testing.T) {
	const password = `it's <"a & b\c"> für 100%`
	dir := t.TempDir()
	for name, text := range map[string]string{"bgp.key": password + "\n", "longer.key": password + "-and-more\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inJSON, err := json.Marshal(password)
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{password, password + "-and-more", string(inJSON), fmt.Sprintf("%q %+q %q", password, password, inJSON), url.QueryEscape(password)}
	var out bytes.Buffer
	if _, err := Write(t.Context(), &out, Options{Dir: "b", Total: time.Minute, Secrets: []string{filepath.Join(dir, "bgp.key"), filepath.Join(dir, "longer.key")}},
		[]Entry{{"log.txt", says(strings.Join(lines, "\n") + "\n")}}); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{withheld, withheld, `"` + withheld + `"`}, "\n")
	got := bundle.Unpack(t, out.Bytes())["b/log.txt"]
	if !strings.HasPrefix(got, want) || strings.Contains(got, "100") || strings.Contains(got, "more") {
		t.Errorf("%s", got)
	}
}

func TestAKeyOfNoFileIsWithheldAndAPublicOneIsNot(t *testing.T) {
	const public, stray = "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=", "QUJDREVGMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk="
	raw, err := base64.StdEncoding.DecodeString(stray)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := Write(t.Context(), &out, Options{Dir: "b", Total: time.Minute, Public: []string{public}}, []Entry{
		{"log.txt", says("peer " + public + " key " + stray + " psk=" + hex.EncodeToString(raw) + "\n")},
	}); err != nil {
		t.Fatal(err)
	}
	if got := bundle.Unpack(t, out.Bytes())["b/log.txt"]; got != "peer "+public+" key "+withheld+" psk="+withheld+"\n" {
		t.Errorf("%s", got)
	}
}
