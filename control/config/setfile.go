package config

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// A set file has one prefix or address per line; what follows # or ; is comment, and blank lines, CRLF and a byte order
// mark are passed over: the netsets of FireHOL are read as they are. docs/set-files.md says what becomes of what else a
// feed may hold.

const (
	// maxSetPrefixes bounds the memory that one file can cost: 32 bytes a prefix here, and more in the classifier.
	maxSetPrefixes = 2_000_000
	// maxSetErrors ends the reading of what is no set file at all.
	maxSetErrors = 1000
	// longestPrefix is well above the longest text of a prefix, "ffff:…:255.255.255.255/128".
	longestPrefix = 100
)

// ReadSetFile reads and checks a set file. The prefixes are masked, sorted and distinct. An error is of type Errors, its
// positions in the file.
func ReadSetFile(path string) ([]netip.Prefix, error) {
	r := newReport("")
	contents, err := readLimited(path, maxSetFile)
	if wrong := unreadable(path, contents, err); !wrong.none() {
		r.add(at{}, wrong)
		return nil, r.err()
	}
	out := r.setLines(path, "", contents)
	if err := r.err(); err != nil {
		return nil, err
	}
	return sortedSet(out), nil
}

// sortedSet sorts prefixes in place, and leaves each once.
func sortedSet(p []netip.Prefix) []netip.Prefix {
	SortPrefixes(p)
	return slices.Compact(p)
}

// SortPrefixes sorts masked prefixes in place, as ComparePrefixes orders them. There may be a million of IPv4, in any order.
func SortPrefixes(p []netip.Prefix) {
	if slices.IsSortedFunc(p, ComparePrefixes) {
		return
	}
	v4 := 0 // IPv4 comes first
	for i := range p {
		if p[i].Addr().Is4() {
			p[v4], p[i] = p[i], p[v4]
			v4++
		}
	}
	sortIPv4(p[:v4])
	slices.SortFunc(p[v4:], ComparePrefixes)
}

const (
	// fewKeys is about from where on it pays to sort by digits.
	fewKeys  = 2048
	digit    = 13 // bits: three of them are an address and a length
	keyParts = 3
)

// sortIPv4 sorts numbers instead of prefixes: address and length in 38 bits, and many of them by digits, the last one first.
// A million takes a seventh of the time of comparing prefixes.
func sortIPv4(p []netip.Prefix) {
	keys := make([]uint64, len(p), 2*len(p))
	for i := range p {
		quad := p[i].Addr().As4()
		keys[i] = uint64(binary.BigEndian.Uint32(quad[:]))<<6 | uint64(p[i].Bits())
	}
	if len(p) < fewKeys {
		slices.Sort(keys)
	} else {
		keys = sortedByDigits(keys, keys[len(p):cap(keys)])
	}
	for i, k := range keys {
		var quad [4]byte
		binary.BigEndian.PutUint32(quad[:], uint32(k>>6))
		p[i] = netip.PrefixFrom(netip.AddrFrom4(quad), int(k&63))
	}
}

// sortedByDigits is a radix sort of keys of keyParts digits; both slices, of one length, are used up.
func sortedByDigits(keys, other []uint64) []uint64 {
	var starts [keyParts][1 << digit]int32
	for _, k := range keys {
		for part := range starts {
			starts[part][k>>(part*digit)&(1<<digit-1)]++
		}
	}
	for part := range starts {
		next := int32(0)
		for d, n := range starts[part] {
			starts[part][d], next = next, next+n
		}
		for _, k := range keys {
			at := &starts[part][k>>(part*digit)&(1<<digit-1)]
			other[*at] = k
			*at++
		}
		keys, other = other, keys
	}
	return keys
}

// ComparePrefixes orders by address, then by length, the shorter first.
func ComparePrefixes(a, b netip.Prefix) int {
	if n := a.Addr().Compare(b.Addr()); n != 0 {
		return n
	}
	return a.Bits() - b.Bits()
}

// unreadable says why there are no contents to look at.
func unreadable(path string, contents []byte, err error) problem {
	var pathErr *fs.PathError
	switch {
	case errors.As(err, &pathErr):
		return bad("cannot read %s: %v", pathErr.Path, pathErr.Err)
	case err != nil:
		return bad("cannot read %s: %v", path, err)
	case len(contents) > maxSetFile:
		return bad("%s is larger than %d MiB", path, maxSetFile>>20)
	}
	return problem{}
}

const byteOrderMark = "\uFEFF"

// setLines reads the lines of a set file; path is that of the key that names it.
func (r *report) setLines(file, path string, contents []byte) (out []netip.Prefix) {
	wrong := func(line, column int, p problem) { r.add(at{Pos{file, line, column}, path}, p) }
	contents = bytes.TrimPrefix(contents, []byte(byteOrderMark))
	if what := notText(contents); !what.none() {
		wrong(0, 0, what)
		return nil
	}
	out = make([]netip.Prefix, 0, min(bytes.Count(contents, []byte{'\n'})+1, maxSetPrefixes))
	for number := 1; len(contents) > 0; number++ {
		if p, length := plainIPv4(contents); length > 0 && len(out) < maxSetPrefixes {
			out, contents = append(out, p), contents[length:]
			continue
		}
		line := contents
		if i := bytes.IndexByte(contents, '\n'); i >= 0 {
			line = contents[:i+1]
		}
		contents = contents[len(line):]
		if i := bytes.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		word := bytes.TrimSpace(line)
		if len(word) == 0 {
			continue
		}
		p, why := setWord(word)
		switch {
		case !why.none():
			wrong(number, 1+bytes.Index(line, word), why)
			if r.counts[file] >= maxSetErrors {
				r.ended[file] = number
				return nil
			}
		case len(out) == maxSetPrefixes:
			wrong(number, 1, bad("more than %d prefixes", maxSetPrefixes).or("split the file, or merge its prefixes"))
			return nil
		default:
			out = append(out, p)
		}
	}
	return out
}

// plainIPv4 reads a line that is nothing but an IPv4 address or prefix as everybody writes them, and says how long the
// line is. 0: it is something else, or wrong. Most lines of most files are such, and parsing them by netip takes four times as long.
func plainIPv4(text []byte) (p netip.Prefix, length int) {
	var quad [4]byte
	i := 0
	for n := range quad {
		v, digits := decimalByte(text[i:])
		if i += digits; digits == 0 || n < 3 && (i == len(text) || text[i] != '.') {
			return p, 0
		}
		quad[n] = v
		if n < 3 {
			i++
		}
	}
	bits := byte(32)
	if i < len(text) && text[i] == '/' {
		v, digits := decimalByte(text[i+1:])
		if digits == 0 || v > 32 {
			return p, 0
		}
		bits, i = v, i+1+digits
	}
	if hosts := uint64(1)<<(32-bits) - 1; uint64(binary.BigEndian.Uint32(quad[:]))&hosts != 0 {
		return p, 0
	}
	switch rest := text[i:]; {
	case len(rest) == 0:
	case rest[0] == '\n':
		i++
	case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
		i += 2
	default:
		return p, 0
	}
	return netip.PrefixFrom(netip.AddrFrom4(quad), int(bits)), i
}

// decimalByte reads a number up to 255, without zeros in front, and says how many digits it has; 0: there is none.
func decimalByte(text []byte) (v byte, digits int) {
	n := 0
	for digits < min(len(text), 4) && text[digits]-'0' <= 9 {
		n = 10*n + int(text[digits]-'0')
		digits++
	}
	if n > 255 || digits > 1 && text[0] == '0' {
		return 0, 0
	}
	return byte(n), digits
}

func setWord(word []byte) (netip.Prefix, problem) {
	if bytes.ContainsAny(word, " \t") {
		return netip.Prefix{}, bad("more than one word on a line").or("write one prefix or address per line")
	}
	text := string(word[:min(len(word), 2*longestPrefix)])
	if len(text) > longestPrefix {
		text = short(text, longestPrefix)
	}
	p, wrong := parseTarget(text)
	if !wrong.none() && looksLikeRange(text) {
		return p, bad("%q is a range", text).or("write it as prefixes")
	}
	return p, wrong
}

// looksLikeRange finds two addresses with a hyphen between.
func looksLikeRange(s string) bool {
	first, last, ok := strings.Cut(s, "-")
	_, badFirst := netip.ParseAddr(first)
	_, badLast := netip.ParseAddr(last)
	return ok && badFirst == nil && badLast == nil
}

// notText finds what would be an error in every line: archives, and what is no text at all.
func notText(contents []byte) problem {
	for magic, name := range map[string]string{"\x1f\x8b": "gzip", "PK\x03\x04": "zip", "\xfd7zXZ": "xz", "\x28\xb5\x2f\xfd": "zstd", "BZh": "bzip2"} {
		if bytes.HasPrefix(contents, []byte(magic)) {
			return bad("the file is compressed (%s)", name).or("unpack it first")
		}
	}
	if i := bytes.IndexByte(contents, 0); i >= 0 {
		return bad("not a text file: line %d holds a NUL byte", 1+bytes.Count(contents[:i], []byte{'\n'}))
	}
	return problem{}
}
