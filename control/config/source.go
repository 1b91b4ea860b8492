package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	maxFile    = 16 << 20 // bytes of the configuration
	maxSetFile = 64 << 20 // bytes of one set file
)

// root is the path of the whole document: never printed, but not "", which would mean unwritten.
const root = "$"

// Source is a configuration as bytes, and the way to the set files it names.
type Source struct {
	Name  string // stands in errors
	Bytes []byte
	// ReadFile returns the contents of a set file; path is as the configuration writes it. Called once per path.
	ReadFile func(path string) ([]byte, error)
}

// LoadFile reads a configuration from disk. Set files are sought relative to its directory, and read when Parse asks.
func LoadFile(path string) (Source, error) {
	contents, err := readLimited(path, maxFile)
	if err != nil {
		return Source{Name: path}, fmt.Errorf("read the configuration: %w", err)
	}
	dir := filepath.Dir(path)
	return Source{Name: path, Bytes: contents, ReadFile: func(set string) ([]byte, error) {
		if !filepath.IsAbs(set) {
			set = filepath.Join(dir, set)
		}
		return readLimited(set, maxSetFile)
	}}, nil
}

// errNotRegular: what is not on a disk may give other bytes at the next reading, or none for ever.
var errNotRegular = errors.New("not a regular file; pipes and devices cannot be read twice")

// readLimited reads at most one byte more than limit: enough for Parse to see that the file is too large. Nonblocking,
// because opening a pipe that nobody writes to would never return.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() { // read says it well for a directory
		return nil, &fs.PathError{Op: "read", Path: path, Err: errNotRegular}
	}
	var out bytes.Buffer
	out.Grow(int(min(info.Size(), limit)) + bytes.MinRead) // else the copies of a growing buffer add up to thrice the file
	_, err = out.ReadFrom(io.LimitReader(f, limit+1))
	return out.Bytes(), err
}

// Parse reads and checks a configuration. It touches nothing but src, so the bytes of a stored revision give the same
// Config again. An error is of type Errors.
func Parse(src Source) (*Config, error) { return new(Cache).Parse(src) }

// parseWhole reads a file in one piece.
func parseWhole(src Source, files *setReader) (*Config, error) {
	r := newReader(newReport(src.Name))
	node := r.document(src.Bytes)
	if node == nil {
		return nil, r.err()
	}
	var raw rawConfig
	r.into(&raw, node, r.at(node, root))
	b := newBuilder(r.report, files)
	b.build(&raw)
	if err := r.err(); err != nil {
		return nil, err
	}
	return b.cfg, nil
}

// document finds the root of the only document of a file, or reports why there is none.
func (r *reader) document(contents []byte) *yaml.Node {
	here := at{pos: Pos{File: r.file}}
	if len(contents) > maxFile {
		r.add(here, bad("the file is larger than %d MiB", maxFile>>20).or("put long lists of prefixes into set files"))
		return nil
	}
	if !utf8.Valid(contents) {
		r.add(at{pos: invalidUTF8(r.file, contents)}, bad("the file is not UTF-8"))
		return nil
	}
	in := yaml.NewDecoder(bytes.NewReader(contents))
	var doc, second yaml.Node
	err := in.Decode(&doc)
	if wrong := err != nil && !errors.Is(err, io.EOF); wrong || bytes.Contains(contents, []byte("! ")) {
		if mended := r.unquotedFlags(contents); mended != nil {
			return r.document(mended) // for what else is wrong
		}
		if wrong {
			r.add(r.syntax(contents, err))
			return nil
		}
	}
	switch err := in.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		r.add(r.syntax(contents, err))
		return nil
	default:
		here.pos.Line, here.pos.Column = second.Line, second.Column
		r.add(here, bad("a second document begins").or("remove the `---` before it and merge the two"))
		return nil
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].ShortTag() == "!!null" {
		r.add(here, bad("the file is empty").or("configs/minimal.yaml is a file to begin with"))
		return nil
	}
	return doc.Content[0]
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntax turns an error of the YAML library into ours. The library gives no column; a tab that indents, its most common
// cause, is found here.
func (r *reader) syntax(contents []byte, err error) (at, problem) {
	pos := Pos{File: r.file}
	if m := syntaxLine.FindStringSubmatch(err.Error()); m[1] != "" {
		pos.Line, _ = strconv.Atoi(m[1])
	}
	msg := err.Error()[len(syntaxLine.FindString(err.Error())):]
	if strings.HasPrefix(msg, "unknown anchor") {
		// The library's text quotes what may be a secret that begins with an asterisk.
		return at{pos: pos}, bad("anchors and aliases are not supported").or("put a value that begins with * in quotes")
	}
	for i, line := range strings.Split(string(contents), "\n") {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 && (pos.Line == 0 || i < pos.Line+1) {
			return at{pos: Pos{r.file, i + 1, tab + 1}}, bad("a tab indents this line").or("indent with spaces")
		}
	}
	return at{pos: pos}, bad("not YAML: %s", msg)
}

// unquotedFlag is a TCP flag that must be clear, as it stands without quotes.
var unquotedFlag = regexp.MustCompile(`^(?:[^#"']|"[^"]*"|'[^']*')*[\s\[,](!(\s*)(fin|syn|rst|psh|ack|urg|ece|cwr))\b`)

// unquotedFlags reports them, and returns the file without their exclamation marks and with everything else in its place;
// nil: there are none. [syn, !ack] ends in the middle of a tag, so that the library reads no more of the file, and
// [! ack] is ack to it.
func (r *reader) unquotedFlags(contents []byte) []byte {
	lines := strings.Split(string(contents), "\n")
	found := false
	for i, line := range lines {
		for at := unquotedFlag.FindStringSubmatchIndex(line); at != nil; at = unquotedFlag.FindStringSubmatchIndex(line) {
			found = true
			blanks, flag := line[at[4]:at[5]], line[at[6]:at[7]]
			r.add(placeOf(r.file, i, line, at[2]), tagged(&yaml.Node{Tag: "!" + flag}))
			line = line[:at[2]] + flag + " " + blanks + line[at[3]:]
		}
		lines[i] = line
	}
	if !found {
		return nil
	}
	return []byte(strings.Join(lines, "\n"))
}

func placeOf(file string, line int, text string, offset int) at {
	return at{pos: Pos{file, line + 1, utf8.RuneCountInString(text[:offset]) + 1}}
}

func invalidUTF8(file string, contents []byte) Pos {
	pos := Pos{file, 1, 1}
	for len(contents) > 0 {
		c, size := utf8.DecodeRune(contents)
		if c == utf8.RuneError && size == 1 {
			break
		}
		pos.Column++
		if c == '\n' {
			pos.Line, pos.Column = pos.Line+1, 1
		}
		contents = contents[size:]
	}
	return pos
}
