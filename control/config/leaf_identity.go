package config

import (
	"slices"
	"strings"
)

// identity is what an end of an IPsec tunnel is called: an address, a host name, name@host, or the subject of a certificate. Nothing
// else, because charon takes a few characters (% * = ,) and words before a colon for more than they say.
type identity string

func (i *identity) takes() takes { return text }
func (i *identity) describe() schema {
	return schema{"description": "address, name, or subject of a certificate", "minLength": 1}
}
func (i *identity) parse(s string) problem {
	if looksLikeAddress(s) {
		a, wrong := parseAddr(s)
		*i = identity(a.String())
		return wrong
	}
	if strings.Contains(s, "=") {
		subject, wrong := parseSubject(s)
		*i = identity(subject)
		return wrong
	}
	*i = identity(s)
	if s == "" || len(s) > 255 || strings.ContainsAny(s[:1], "._@-") || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-") != "" {
		return bad("%q is not an id", s).or("write an address or a name of letters, digits, dot, underscore, hyphen and @, or the subject of a certificate as %s", subjectExample)
	}
	return problem{}
}

func (i identity) isSubject() bool { return strings.Contains(string(i), "=") }

const subjectExample = `"O=Example, CN=edge-1"`

// parseSubject reads a distinguished name, and writes it as charon does: which of two ends begins follows from how both are written.
// Characters that have a meaning of their own, to charon or in RFC 4514, are refused rather than escaped.
func parseSubject(s string) (string, problem) {
	types := []string{"C", "ST", "L", "O", "OU", "CN", "DC"}
	var parts []string
	for _, part := range strings.Split(s, ",") {
		name, value, _ := strings.Cut(part, "=")
		name, value = strings.ToUpper(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !slices.Contains(types, name):
			return s, bad("%q is not the subject of a certificate", s).
				or("write it in the order of `openssl x509 -noout -subject`, of %s alone, as %s; or as id a name of its subjectAltName", strings.Join(types, ", "), subjectExample)
		case value == "" || strings.ContainsAny(value, `=/*%#"+<>;\{}`) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return s, bad("%q is nothing that %s of an id may be", value, name).or(`write no = / * %% # " + < > ; \ { } in it, or as id a name of the certificate's subjectAltName`)
		}
		parts = append(parts, name+"="+value)
	}
	subject := strings.Join(parts, ", ")
	if len(subject) > 255 {
		return s, bad("the id has %d characters", len(subject)).or("write a name of the certificate's subjectAltName")
	}
	return subject, problem{}
}
