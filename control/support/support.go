// Package support packs what a ticket needs into one tar.gz, bounded in size and time. What each entry holds is its caller's; that no
// key of this machine is in it, whoever wrote it there, is seen to here.
package support

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/control/config"
)

// The bounds of a bundle, before it is packed: bytes of an entry, bytes of all, time for an entry.
const (
	MaxEntry = 1 << 20
	MaxTotal = 24 << 20
	Patience = 10 * time.Second
)

// Entry is one file of the bundle. Write may fail: the bundle says why, and has what came before.
type Entry struct {
	Name  string
	Write func(ctx context.Context, w io.Writer) error
}

// Options are what a bundle is made with.
type Options struct {
	Dir     string   // of all files in the bundle
	Secrets []string // files that hold a secret
	Public  []string // words that look like a secret and are none, in base64
	Now     time.Time
	Total   time.Duration // for all entries; what is not begun by then is left out
}

// Write packs the entries, and in front of them MANIFEST.txt, which says what could not be had. Secrets are files: what they hold is
// taken out of every entry, and what else may be a key.
func Write(ctx context.Context, out io.Writer, o Options, entries []Entry) (failed []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.Total)
	defer cancel()
	known := withholder(o.Secrets)
	withhold := func(text string) string {
		return config.WithholdKeys(known.Replace(text), withheld, func(word string) bool { return slices.Contains(o.Public, word) })
	}
	manifest := &strings.Builder{}
	fmt.Fprintf(manifest, "made %s\nno file here holds a key: what key files hold, and what else looks like a key, is replaced by %s\n\n", o.Now.UTC().Format(time.RFC3339), withheld)
	var names []string
	var bodies [][]byte
	left := MaxTotal
	for _, e := range entries {
		text, why := collect(ctx, e, min(MaxEntry, left))
		text = []byte(withhold(string(text)))
		left -= min(left, len(text))
		fmt.Fprintf(manifest, "%8d  %s", len(text), e.Name)
		if why != nil {
			note := withhold(why.Error())
			fmt.Fprintf(manifest, "  INCOMPLETE: %s", note)
			failed = append(failed, e.Name+": "+note)
		}
		fmt.Fprintln(manifest)
		if len(text) > 0 {
			names, bodies = append(names, e.Name), append(bodies, text)
		}
	}
	names, bodies = append([]string{"MANIFEST.txt"}, names...), append([][]byte{[]byte(manifest.String())}, bodies...)
	return failed, pack(out, o, names, bodies)
}

func pack(out io.Writer, o Options, names []string, bodies [][]byte) error {
	z := gzip.NewWriter(out)
	t := tar.NewWriter(z)
	for i, name := range names {
		h := &tar.Header{Name: o.Dir + "/" + name, Mode: 0o600, Size: int64(len(bodies[i])), ModTime: o.Now, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if _, err := t.Write(bodies[i]); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return errors.Join(t.Close(), z.Close())
}

// errFull ends an entry that is longer than its bound.
var errFull = errors.New("cut off: it is longer than a bundle takes")

// bounded takes so many bytes, and then no more.
type bounded struct {
	text []byte
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.most - len(b.text)
	if len(p) <= room {
		b.text = append(b.text, p...)
		return len(p), nil
	}
	b.text = append(b.text, p[:room]...)
	return room, errFull
}

// collect runs one entry. One that does not heed its context is left behind with a pipe that nobody reads any more.
func collect(ctx context.Context, e Entry, most int) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, errors.New("left out: the time of the bundle was over")
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	r, w := io.Pipe()
	go func() { w.CloseWithError(e.Write(ctx, w)) }()
	stop := context.AfterFunc(ctx, func() { r.CloseWithError(fmt.Errorf("stopped after %s", Patience)) })
	defer stop()
	b := &bounded{most: most}
	_, err := io.Copy(b, r)
	r.CloseWithError(errFull)
	if err != nil {
		// Half a key would not be known for one: a line is there as a whole, or not at all.
		b.text = b.text[:bytes.LastIndexByte(b.text, '\n')+1]
	}
	return b.text, err
}

const withheld = "[withheld]"

// shortest is the length from which on the contents of a key file are looked for: shorter ones occur by chance.
const shortest = 6

// withholder replaces what files hold, as it is there and in the forms that keys and passwords are printed in.
func withholder(files []string) *strings.Replacer {
	found := map[string]bool{}
	add := func(secret string) {
		if len(secret) >= shortest {
			for _, form := range written(secret) {
				found[form] = true
			}
		}
	}
	for _, file := range files {
		data, err := readSmall(file)
		if err != nil {
			continue // what we cannot read we cannot have told, either
		}
		text := strings.TrimSpace(string(data))
		for line := range strings.Lines(text) {
			add(strings.TrimSpace(line))
		}
		raw := []byte(text)
		if key, err := base64.StdEncoding.DecodeString(text); err == nil {
			raw = key
			add(string(raw))
		}
		add(base64.StdEncoding.EncodeToString(raw))
		add(base64.RawURLEncoding.EncodeToString(raw))
		add(strings.TrimRight(base64.StdEncoding.EncodeToString(raw), "="))
		add(hex.EncodeToString(raw))
		add(strings.ToUpper(hex.EncodeToString(raw)))
	}
	// The first that fits is replaced: a secret that another one begins with would leave the rest of that one.
	longest := slices.SortedFunc(maps.Keys(found), func(a, b string) int { return cmp.Or(len(b)-len(a), cmp.Compare(a, b)) })
	var pairs []string
	for _, secret := range longest {
		pairs = append(pairs, secret, withheld)
	}
	return strings.NewReplacer(pairs...)
}

// written are the forms of a text in JSON, in Go's %q, in YAML and in an address, and in JSON or %q that was logged as text.
func written(text string) []string {
	var plain strings.Builder
	e := json.NewEncoder(&plain)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // of a string into memory
	html, _ := json.Marshal(text)
	unquoted := func(quoted string) string { q := strings.TrimSpace(quoted); return q[1 : len(q)-1] }
	out := []string{text, strings.ReplaceAll(text, "'", "''"), url.QueryEscape(text), url.PathEscape(text)}
	for _, once := range []string{unquoted(plain.String()), unquoted(string(html)), unquoted(strconv.Quote(text)), unquoted(strconv.QuoteToASCII(text))} {
		out = append(out, once, unquoted(strconv.Quote(once)))
	}
	return out
}

// readSmall reads what may be a key: nothing that is a device, or large.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 64<<10 {
		return nil, fmt.Errorf("%s is no key file", path)
	}
	return os.ReadFile(path)
}
