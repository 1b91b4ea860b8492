package bgp

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Notification is the message that ended a session, or refused one.
type Notification struct {
	Time    time.Time `json:"time"`
	Sent    bool      `json:"sent"` // by us
	Code    uint8     `json:"code"`
	Subcode uint8     `json:"subcode"`
	Meaning string    `json:"meaning"`
	Text    string    `json:"text,omitempty"` // of the operators there (RFC 9003); printable, whatever came
}

func (n Notification) String() string {
	out := map[bool]string{true: "sent ", false: "received "}[n.Sent] + n.Meaning
	if n.Text != "" {
		out += fmt.Sprintf(" (%q)", n.Text)
	}
	return out
}

// meanings are RFC 4271 section 4.5, 4486, 6608, 8538, 9234 and 9384: by code, the code's own word first.
var meanings = map[uint8][]string{
	1: {"Message Header Error", "Connection Not Synchronized", "Bad Message Length", "Bad Message Type"},
	2: {"OPEN Message Error", "Unsupported Version Number", "Bad Peer AS", "Bad BGP Identifier", "Unsupported Optional Parameter",
		"Authentication Failure", "Unacceptable Hold Time", "Unsupported Capability", 11: "Role Mismatch"},
	3: {"UPDATE Message Error", "Malformed Attribute List", "Unrecognized Well-known Attribute", "Missing Well-known Attribute",
		"Attribute Flags Error", "Attribute Length Error", "Invalid ORIGIN Attribute", "AS Routing Loop", "Invalid NEXT_HOP Attribute",
		"Optional Attribute Error", "Invalid Network Field", "Malformed AS_PATH"},
	4: {"Hold Timer Expired"},
	5: {"Finite State Machine Error", "Unexpected Message in OpenSent", "Unexpected Message in OpenConfirm", "Unexpected Message in Established"},
	6: {"Cease", "Maximum Number of Prefixes Reached", "Administrative Shutdown", "Peer De-configured", "Administrative Reset",
		"Connection Rejected", "Other Configuration Change", "Connection Collision Resolution", "Out of Resources", "Hard Reset", "BFD Down"},
	7: {"ROUTE-REFRESH Message Error", "Invalid Message Length"},
}

func meaning(code, subcode uint8) string {
	words := meanings[code]
	switch {
	case words == nil:
		return fmt.Sprintf("error %d/%d", code, subcode)
	case subcode == 0:
		return words[0]
	case int(subcode) >= len(words) || words[subcode] == "":
		return fmt.Sprintf("%s: subcode %d", words[0], subcode)
	}
	return words[0] + ": " + words[subcode]
}

// harmless returns what a stranger wrote without what a terminal would obey.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
}
