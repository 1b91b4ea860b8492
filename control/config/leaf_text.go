package config

import (
	"encoding/base64"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// name is the name of anything that the file names itself.
type name string

const namePattern = `^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$`

// isWord is namePattern and linkPattern, which say how long a word may be: a regular expression takes ten times as long.
func isWord(s string, longest int) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
		if !letter && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= longest
}

func (n *name) takes() takes     { return text }
func (n *name) describe() schema { return schema{"pattern": namePattern} }
func (n *name) parse(s string) problem {
	*n = name(s)
	switch {
	case len(s) > 63:
		return bad("the name is %d characters long", len(s)).or("63 is the most")
	case !isWord(s, 63):
		return bad("%q is not a name", s).or("use letters, digits, dot, underscore and hyphen, and do not begin with dot or hyphen")
	case looksLikeAddress(s):
		return bad("the name %q reads as an address", s).or("put a letter in")
	}
	return problem{}
}

// linkName is the name of a network device. The kernel's limit is IFNAMSIZ, 16 with the final NUL.
type linkName string

const linkPattern = `^[A-Za-z0-9_][A-Za-z0-9._-]{0,14}$`

func (n *linkName) takes() takes     { return text }
func (n *linkName) describe() schema { return schema{"pattern": linkPattern} }
func (n *linkName) parse(s string) problem {
	*n = linkName(s)
	switch {
	case len(s) > 15:
		return bad("interface name %q is %d bytes long", s, len(s)).or("the kernel allows 15")
	case !isWord(s, 15):
		return bad("%q is not an interface name", s).or("use letters, digits, dot, underscore and hyphen, and do not begin with dot or hyphen")
	case s == "all" || s == "default":
		// net.ipv4.conf has entries of these names that are no interfaces.
		return bad("%q cannot name an interface", s)
	}
	return problem{}
}

// absPath names a file of the machine, often one with a secret: its value is never printed, because somebody may have
// put the secret itself there.
type absPath string

func (p *absPath) takes() takes     { return text }
func (p *absPath) describe() schema { return schema{"pattern": "^/"} }
func (p *absPath) parse(s string) problem {
	*p = absPath(s)
	if looksLikeKey(s) {
		return bad("a secret does not belong in this file, and this looks like a key rather than the path of one").
			or("put a new key into a file of mode 0600, and write the file's whole path: this one has been seen")
	}
	if !filepath.IsAbs(s) || strings.ContainsAny(s, "\x00\n") {
		return bad("not an absolute path").or("write the whole path of the file, beginning with /")
	}
	return problem{}
}

// setPath names a set file, relative to FILE's directory or absolute.
type setPath string

func (p *setPath) takes() takes     { return text }
func (p *setPath) describe() schema { return schema{"minLength": 1} }
func (p *setPath) parse(s string) problem {
	*p = setPath(s)
	if s == "" || strings.ContainsAny(s, "\x00\n") {
		return bad("not a path")
	}
	return problem{}
}

// duration always has a unit.
type duration time.Duration

const durationPattern = `^([0-9]+(ms|s|m|h))+$`

var durationRegexp = regexp.MustCompile(durationPattern)

func (d *duration) takes() takes     { return text }
func (d *duration) describe() schema { return schema{"pattern": durationPattern} }
func (d *duration) parse(s string) problem {
	if s != "" && digits(s) {
		return bad("%s has no unit", s).or("write %ss", s)
	}
	v, err := time.ParseDuration(s)
	if err != nil || !durationRegexp.MatchString(s) {
		return bad("%q is not a duration", s).or("write a number and a unit (ms, s, m, h), such as 90s")
	}
	*d = duration(v)
	return problem{}
}

// notice is one line of text for the operators of another box.
type notice string

// maxNotice is RFC 8203's: GoBGP cuts at 128 bytes what RFC 9003 lets have 255.
const maxNotice = 128

func (t *notice) takes() takes     { return text }
func (t *notice) describe() schema { return schema{"minLength": 1, "maxLength": maxNotice} }
func (t *notice) parse(s string) problem {
	*t = notice(s)
	switch {
	case s == "":
		return bad("the text is empty").or("say it in a few words")
	case len(s) > maxNotice:
		return bad("%d bytes of text are too long", len(s)).or("write at most %d", maxNotice)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return bad("the text holds characters that do not print").or("write one plain line")
	}
	return problem{}
}

// community is an RFC 1997 community, ASN in the high half.
type community uint32

func (c *community) takes() takes     { return text }
func (c *community) describe() schema { return schema{"pattern": `^[0-9]{1,5}:[0-9]{1,5}$`} }
func (c *community) parse(s string) problem {
	high, low, ok := strings.Cut(s, ":")
	h, badHigh := decimal(high, 0, 65535)
	l, badLow := decimal(low, 0, 65535)
	if !ok || !badHigh.none() || !badLow.none() {
		return bad("%q is not a community", s).or("write two numbers up to 65535, such as \"65010:100\"")
	}
	*c = community(h<<16 | l)
	return problem{}
}

// publicKey is a Curve25519 public key. Its value is never printed: a private key looks the same.
type publicKey string

func (k *publicKey) takes() takes     { return text }
func (k *publicKey) describe() schema { return schema{"pattern": "^[A-Za-z0-9+/]{43}=$"} }
func (k *publicKey) parse(s string) problem {
	*k = publicKey(s)
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	switch {
	case err != nil || strings.ContainsAny(s, "\r\n"):
		return bad("not a public key").or("write the 44 characters of base64 that `wg pubkey` prints")
	case len(raw) != 32:
		return bad("the public key is %d bytes long", len(raw)).or("a WireGuard key has 32 bytes, which is 44 characters of base64")
	}
	return problem{}
}

// sysctlKey is a dotted key under net. Slashes would leave the tree that the dots stand for.
type sysctlKey string

const sysctlPattern = `^net(\.[A-Za-z0-9_-]+)+$`

var sysctlRegexp = regexp.MustCompile(sysctlPattern)

func (k *sysctlKey) takes() takes     { return text }
func (k *sysctlKey) describe() schema { return schema{"pattern": sysctlPattern} }
func (k *sysctlKey) parse(s string) problem {
	*k = sysctlKey(s)
	if !sysctlRegexp.MatchString(s) {
		return bad("%q is not a sysctl under net", s).or("write a dotted key, such as net.ipv4.tcp_syncookies")
	}
	return problem{}
}

// sysctlValue is one line, as it is written to /proc/sys.
type sysctlValue string

func (v *sysctlValue) takes() takes     { return text | integer }
func (v *sysctlValue) describe() schema { return schema{"pattern": `^[^\n]+$`} }
func (v *sysctlValue) parse(s string) problem {
	*v = sysctlValue(s)
	if strings.TrimSpace(s) == "" || strings.ContainsAny(s, "\x00\n") {
		return bad("a sysctl's value is one line of text")
	}
	return problem{}
}

// tunnelMTU is bytes, or 0 for auto.
type tunnelMTU int

func (m *tunnelMTU) takes() takes { return text | integer }
func (m *tunnelMTU) describe() schema {
	return schema{"pattern": "^auto$", "minimum": minMTU, "maximum": maxMTU}
}
func (m *tunnelMTU) parse(s string) problem {
	if s == "auto" {
		return problem{}
	}
	if s == "" || !digits(s) {
		return bad("%q is not an MTU", s).or("write auto or bytes, such as 1420")
	}
	i, p := decimal(s, minMTU, maxMTU)
	*m = tunnelMTU(i)
	return p
}

// protocol is an IP protocol by name or number.
type protocol struct{ Protocol }

const (
	protocolICMP    Protocol = 1
	protocolTCP     Protocol = 6
	protocolUDP     Protocol = 17
	protocolICMPv6  Protocol = 58
	protocolSCTP    Protocol = 132
	protocolUDPLite Protocol = 136
)

func protocolByName(s string) (p Protocol, ok bool) {
	switch s {
	case "any":
		p = AnyProtocol
	case "icmp":
		p = protocolICMP
	case "tcp":
		p = protocolTCP
	case "udp":
		p = protocolUDP
	case "gre":
		p = 47
	case "esp":
		p = 50
	case "icmpv6":
		p = protocolICMPv6
	case "sctp":
		p = protocolSCTP
	case "udplite":
		p = protocolUDPLite
	default:
		return 0, false
	}
	return p, true
}

func (p *protocol) takes() takes { return text | integer }
func (p *protocol) describe() schema {
	return schema{"pattern": "^(any|icmp|tcp|udp|gre|esp|icmpv6|sctp|udplite)$", "minimum": 0, "maximum": 255}
}
func (p *protocol) parse(s string) problem {
	if known, ok := protocolByName(s); ok {
		p.Protocol = known
		return problem{}
	}
	if _, err := strconv.Atoi(s); err != nil {
		hint := "write tcp, udp, sctp, udplite, icmp, icmpv6, gre, esp, any or a number"
		if strings.EqualFold(s, "icmp6") || strings.EqualFold(s, "ipv6-icmp") {
			hint = "write icmpv6"
		}
		return bad("%q is not a protocol", s).or("%s", hint)
	}
	i, bad := decimal(s, 0, 255)
	p.Protocol = Protocol(i)
	return bad
}

func (p Protocol) hasPorts() bool {
	return p == protocolTCP || p == protocolUDP || p == protocolSCTP || p == protocolUDPLite
}

// ports is one port or an inclusive range of them.
type ports struct{ PortRange }

func (r *ports) takes() takes { return text | integer }
func (r *ports) describe() schema {
	return schema{"pattern": "^[0-9]{1,5}-[0-9]{1,5}$", "minimum": 1, "maximum": 65535}
}
func (r *ports) parse(s string) problem {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	first, p := decimal(strings.TrimSpace(low), 1, 65535)
	if !p.none() {
		return bad("%s is not a port", quoteIfNotNumber(s)).or("ports are 1-65535")
	}
	last, p := decimal(strings.TrimSpace(high), 1, 65535)
	if !p.none() {
		return bad("%s is not a port range", quoteIfNotNumber(s)).or("ports are 1-65535")
	}
	if first > last {
		return bad("port range %d-%d is upside down", first, last).or("write %d-%d", last, first)
	}
	r.PortRange = PortRange{uint16(first), uint16(last)}
	return problem{}
}

func quoteIfNotNumber(s string) string {
	if s != "" && strings.Trim(s, "0123456789-") == "" {
		return s
	}
	return strconv.Quote(s)
}
