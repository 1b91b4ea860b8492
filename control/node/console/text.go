package console

import "strings"

// plain is text that no terminal takes for more than letters: messages may quote what strangers sent.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
}

// cut shortens a line.
func cut(s string, most int) string {
	if s = plain(s); len(s) > most {
		return s[:most-1] + ">"
	}
	return s
}

// wrap breaks a text at blanks into at most so many lines of Width, indented behind the first; the last one says where more follows.
func wrap(mark, s string, most int) (out []string) {
	line := mark
	for _, word := range strings.Fields(plain(s)) {
		if len(line) > len(mark) && len(line)+1+len(word) > Width {
			if len(out) == most-1 {
				return append(out, cut(line+" "+word, Width))
			}
			out, line = append(out, line), strings.Repeat(" ", len(mark))
		}
		if len(line) > len(mark) {
			line += " "
		}
		line += word
	}
	return append(out, line)
}
