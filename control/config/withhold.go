package config

import (
	"encoding/base64"
	"encoding/hex"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// withheld stands in an error where the file has what may be a secret.
const withheld = "(withheld)"

// shortestKey is how many characters 32 bytes have in base64 without its padding.
const shortestKey = 43

// WithholdKeys writes instead for every word of a text that may be a key: 32 bytes or more in base64 of either alphabet, padded or
// not, or in hex, also with more letters around them. Words that public knows stay; nil knows none. Digests look the same, and are
// taken for keys: that is the safer mistake.
func WithholdKeys(text, instead string, public func(word string) bool) string {
	var out strings.Builder
	done := 0
	for i := 0; i < len(text); {
		if !keyLetter(text[i]) {
			i++
			continue
		}
		start := i
		for i < len(text) && keyLetter(text[i]) {
			i++
		}
		letters := text[start:i]
		for i < len(text) && text[i] == '=' {
			i++
		}
		if len(letters) < shortestKey {
			continue
		}
		if n := escaped(text[:start], letters); mayBeKey(letters[n:], i > start+len(letters)) && (public == nil || !public(text[start+n:i])) {
			out.WriteString(text[done:start+n] + instead)
			done = i
		}
	}
	if done == 0 {
		return text
	}
	return out.String() + text[done:]
}

func keyLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '/' || c == '_' || c == '-'
}

// escaped is how many letters belong to an escape of JSON or Go that a backslash in front begins, such as \n or \u003c.
func escaped(before, letters string) int {
	switch {
	case !strings.HasSuffix(before, `\`):
		return 0
	case letters[0] == 'u':
		return 5
	case letters[0] == 'x':
		return 3
	}
	return 1
}

// mayBeKey judges letters without their padding. Without it, 43 random ones have some 18 neighbors that are two large letters, or a
// digit and a letter, and hardly ever less than 7; a path, or a name in camel case, has a few.
func mayBeKey(letters string, padded bool) bool {
	const odd = 7
	var pairs [shortestKey]bool // of the last letters, whether each makes an odd pair with that in front
	last := '/'
	seen, inHex, found := map[rune]bool{}, 0, 0
	for i, c := range letters {
		kind := kindOf(c)
		seen[kind] = true
		if inHex++; !strings.ContainsRune("0123456789abcdefABCDEF", c) {
			inHex = 0
		}
		at := &pairs[i%shortestKey]
		if *at {
			found--
		}
		if *at = kind == 'A' && last == 'A' || kind != last && (kind == '0' || last == '0') && kind != '/' && last != '/'; *at {
			found++
		}
		last = kind
		if inHex == 64 || i >= shortestKey-1 && found >= odd && seen['A'] && seen['a'] && seen['0'] {
			return true
		}
	}
	return padded && len(letters) >= shortestKey && (seen['A'] || seen['a'] || seen['0'])
}

// looksLikeKey is for where a path is expected: only what cannot be one is a key there, 32 bytes in base64, which may begin with a
// slash as a path does, or in hex.
func looksLikeKey(s string) bool {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "0s"))
	if err != nil || !strings.HasSuffix(s, "=") {
		raw, err = hex.DecodeString(strings.TrimPrefix(s, "0x"))
	}
	return err == nil && len(raw) == 32
}

func kindOf(c rune) rune {
	switch {
	case 'A' <= c && c <= 'Z':
		return 'A'
	case 'a' <= c && c <= 'z':
		return 'a'
	case '0' <= c && c <= '9':
		return '0'
	}
	return '/'
}

// A key of the file that belongs to a secret, and what stands beside it in the same word because a blank is missing.
var (
	fileWord    = `[A-Za-z_-]*_file`
	secretWord  = `(?:` + strings.Join(append(slices.Sorted(maps.Keys(secretKeys())), fileWord), "|") + `)`
	behindWord  = regexp.MustCompile(`(?is)^(.*?\b` + secretWord + `)[\s:="']+[^\s:="'].*$`)
	inFrontWord = regexp.MustCompile(`(?is)^.*[^\s:="'][:="']+\s*` + secretWord + `[\s"']*$`)
	onlyWord    = regexp.MustCompile(`(?i)^` + secretWord + `$`)
)

// fileValue is a key that names a file, and its value, however that is quoted and whatever is missing between the two.
var fileValue = regexp.MustCompile(`(?i)` + fileWord + `["']?[ \t]*[:=]?\s*(?:"([^"\n]*)"|'([^'\n]*)'|([^\s"',{}\[\]]+))`)

// KeyFilesIn are the files that a text names for keys, whether or not it is YAML; relative ones are sought in dir, too.
func KeyFilesIn(text []byte, dir string) (out []string) {
	for _, m := range fileValue.FindAllSubmatch(text, -1) {
		path := string(slices.Concat(m[1:]...))
		if path == "" || strings.ContainsRune(path, 0) {
			continue
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		out = append(out, path)
	}
	return out
}

// spokenWord is the one door through which words of a file go into errors: without what may be a secret. Before anything is cut off,
// because half a key would not be known for one.
func spokenWord(s string) string {
	switch {
	case inFrontWord.MatchString(s):
		return withheld
	case behindWord.MatchString(s):
		s = behindWord.ReplaceAllString(s, "${1}:"+withheld)
	}
	return WithholdKeys(s, withheld, nil)
}

// spokenKey is a key of the file as errors and their paths may tell it: not at all where key and value changed places.
func spokenKey(name, value *yaml.Node) string {
	if value.Kind == yaml.ScalarNode && onlyWord.MatchString(strings.TrimSpace(value.Value)) && !onlyWord.MatchString(name.Value) {
		return withheld
	}
	return spokenWord(name.Value)
}

// short is a word of the file as an error may tell it, of so many bytes at most.
func short(s string, most int) string {
	const ahead = 4096 // enough to see a key as a whole that the end would halve; a line may be endless
	if s = spokenWord(s[:min(len(s), ahead)]); len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// clip shortens what a file may have made endless, and says so.
func clip(s string) string {
	const most = 200
	out := short(s, most+1)
	if len(out) <= most {
		return out
	}
	return strings.ToValidUTF8(out[:most], "") + "..."
}

// quoted makes every text among arguments short, of whatever type of text it is.
func quoted(args []any) []any {
	for i, arg := range args {
		if s, ok := arg.(string); ok {
			args[i] = clip(s)
		} else if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
			if _, ok := arg.(interface{ String() string }); !ok {
				args[i] = clip(v.String())
			}
		}
	}
	return args
}
