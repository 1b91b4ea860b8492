package packet

import "strconv"

// ProtocolName is the name that Parse takes for an IP protocol, or its number.
func ProtocolName(protocol uint8) string {
	if name := protocolName(protocol); name != "" {
		return name
	}
	return strconv.Itoa(int(protocol))
}

// FlagText gives TCP flags as letters: "SA".
func FlagText(flags uint8) string { return flagText(flags) }

// ParseProtocol takes the name or the number of an IP protocol.
func ParseProtocol(word string) (uint8, error) { return parseProtocol(word) }
