package slots

import (
	"cmp"
	"strings"
)

// Compare orders versions as systemd-boot and UAPI's version format specification do: ~ is before everything, the end included, then
// come -, ^ and . as separators; digits are numbers, capitals come before small letters, other characters are passed over.
func Compare(a, b string) int {
	for {
		a, b = strings.TrimLeftFunc(a, ignored), strings.TrimLeftFunc(b, ignored)
		if c := separator(&a, &b, '~'); c != 0 {
			return c
		}
		if a == "" || b == "" {
			return cmp.Compare(len(a), len(b))
		}
		for _, s := range []byte("-^.") {
			if c := separator(&a, &b, s); c != 0 {
				return c
			}
		}
		kind := isLetter
		if startsWith(a, isDigit) || startsWith(b, isDigit) {
			kind = isDigit
		}
		first, second := span(&a, kind), span(&b, kind)
		if kind('0') {
			if c := cmp.Compare(min(len(first), 1), min(len(second), 1)); c != 0 {
				return c
			}
			first, second = strings.TrimLeft(first, "0"), strings.TrimLeft(second, "0")
			if c := cmp.Compare(len(first), len(second)); c != 0 {
				return c
			}
		}
		if c := strings.Compare(first, second); c != 0 {
			return c
		}
	}
}

// separator takes s off both; where one alone has it, that one is the older.
func separator(a, b *string, s byte) int {
	has, had := strings.HasPrefix(*a, string(s)), strings.HasPrefix(*b, string(s))
	switch {
	case has && had:
		*a, *b = (*a)[1:], (*b)[1:]
		return 0
	case has:
		return -1
	case had:
		return 1
	}
	return 0
}

// span takes what is of a kind off the front.
func span(s *string, kind func(rune) bool) string {
	rest := strings.TrimLeftFunc(*s, kind)
	out := (*s)[:len(*s)-len(rest)]
	*s = rest
	return out
}

func startsWith(s string, kind func(rune) bool) bool { return s != "" && kind(rune(s[0])) }

func isDigit(r rune) bool { return r >= '0' && r <= '9' }

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

func ignored(r rune) bool { return !isDigit(r) && !isLetter(r) && !strings.ContainsRune("-.~^", r) }
