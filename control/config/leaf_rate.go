package config

import (
	"cmp"
	"regexp"
	"strings"
)

// rate is packets or bits per second, always with a unit. Multiples are decimal: 1k is 1000.
type rate struct {
	perSecond uint64
	bits      bool
}

// The bounds of a rate. Above them a limit cannot be kept within 1 %.
const (
	maxPacketRate = 1_000_000_000
	minBitRate    = 1000
	maxBitRate    = 400_000_000_000
)

const ratePattern = `^[1-9][0-9]*[kMG]?[pb]ps$`

var rateRegexp = regexp.MustCompile(ratePattern)

func (r *rate) takes() takes     { return text }
func (r *rate) describe() schema { return schema{"pattern": ratePattern} }
func (r *rate) parse(s string) problem {
	if !rateRegexp.MatchString(s) {
		return misspelt("rate", s, rateRegexp, rateSpellings, "write a whole number of pps or bps, with k, M or G before it: 500pps, 10kpps, 1Gbps")
	}
	r.bits = strings.HasSuffix(s, "bps")
	n, fits := multiplied(s[:len(s)-3])
	low, high := uint64(1), uint64(maxPacketRate)
	if r.bits {
		low, high = minBitRate, maxBitRate
	}
	if !fits || n < low || n > high {
		if r.bits {
			return bad("%s is outside 1kbps-400Gbps", s)
		}
		return bad("%s is outside 1pps-1Gpps", s)
	}
	r.perSecond = n
	return problem{}
}

// bitRate is bits per second, always with the unit.
type bitRate uint64

func (r *bitRate) takes() takes     { return text }
func (r *bitRate) describe() schema { return schema{"pattern": `^[1-9][0-9]*[kMG]?bps$`} }
func (r *bitRate) parse(s string) problem {
	var any rate
	if !rateRegexp.MatchString(s) {
		return misspelt("rate", s, rateRegexp, rateSpellings, "write a whole number of bps, with k, M or G before it: 100Mbps, 1Gbps")
	}
	switch p := any.parse(s); {
	case !p.none():
		return p
	case !any.bits:
		return bad("%s counts packets", s).or("write bits per second: 100Mbps, 1Gbps")
	}
	*r = bitRate(any.perSecond)
	return problem{}
}

// burst is packets or bytes, always with a unit.
type burst struct {
	amount uint64
	bytes  bool
}

const burstPattern = `^[1-9][0-9]*[kMG]?[pB]$`

var burstRegexp = regexp.MustCompile(burstPattern)

func (b *burst) takes() takes     { return text }
func (b *burst) describe() schema { return schema{"pattern": burstPattern} }
func (b *burst) parse(s string) problem {
	if !burstRegexp.MatchString(s) {
		return misspelt("burst", s, burstRegexp, burstSpellings, "write a whole number of packets (p) or bytes (B), with k, M or G before it: 500p, 20kp, 1MB")
	}
	n, fits := multiplied(s[:len(s)-1])
	if !fits {
		return bad("a burst of %s is too large", s)
	}
	b.amount, b.bytes = n, strings.HasSuffix(s, "B")
	return problem{}
}

// What people write for the unit behind the multiple. Bytes per second are none of them: that would be an eighth.
const (
	rateSpellings  = `^([1-9][0-9]*)([kKmMgG]?)(?:(pps|pp|p/s|pkts?/s|packets?/s|packets?|p)|(bps|b/s|bits?/s|bits?|b))$`
	burstSpellings = `^([1-9][0-9]*)([kKmMgG]?)(?:(p|pp|pps|pkts?|packets?)|(B|[Bb]ytes?))$`
)

// misspelt refuses what is no quantity. Where only blanks, the case of the multiple or the spelling of the unit are wrong,
// the hint is the answer. spellings has the number, the multiple, and the unit as packets or as the other.
func misspelt(what, s string, right *regexp.Regexp, spellings, hint string) problem {
	m := regexp.MustCompile(spellings).FindStringSubmatch(strings.ReplaceAll(s, " ", ""))
	if m != nil {
		multiple := map[string]string{"K": "k", "m": "M", "g": "G"}
		units := map[string][2]string{"rate": {"pps", "bps"}, "burst": {"p", "B"}}[what]
		unit := units[0]
		if m[4] != "" {
			unit = units[1]
		}
		if near := m[1] + cmp.Or(multiple[m[2]], m[2]) + unit; right.MatchString(near) {
			hint = "write " + near
		}
	}
	return bad("%q is not a %s", s, what).or("%s", hint)
}

// multiplied reads a number with k, M or G behind it.
func multiplied(s string) (n uint64, fits bool) {
	const most = 1 << 62 // far beyond any bound
	factor := max(1, map[byte]int64{'k': 1e3, 'M': 1e6, 'G': 1e9}[s[len(s)-1]])
	i, p := decimal(strings.TrimRight(s, "kMG"), 0, most/factor)
	return uint64(i * factor), p.none()
}
