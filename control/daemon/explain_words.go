package daemon

import (
	"errors"
	"fmt"
	"strings"

	"sluice/control/config"
	"sluice/xdp/packet"
)

// spelled gives a packet's line (package packet) with numbers and letters in the place of the words that rules take:
// dscp=ef, type=echo-request, flags=syn,!ack, fragment=first, vlan=untagged. What it does not know it leaves alone.
func spelled(line string) (string, error) {
	words := strings.Fields(line)
	if len(words) < 4 {
		return line, nil
	}
	protocol, err := packet.ParseProtocol(words[0])
	if err != nil {
		return line, nil // which says so itself
	}
	out := words[:4:4]
	for _, word := range words[4:] {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			out = append(out, word)
			continue
		}
		as, err := spelledOption(protocol, key, value)
		if err != nil {
			return "", fmt.Errorf("packet %q: option %q: %w", line, word, err)
		}
		out = append(out, as...)
	}
	return strings.Join(out, " "), nil
}

func spelledOption(protocol uint8, key, value string) ([]string, error) {
	switch key {
	case "dscp":
		d, err := config.ParseDSCP(value)
		return []string{fmt.Sprintf("dscp=%d", d)}, err
	case "type", "code", "id":
		if protocol != packet.ICMP && protocol != packet.ICMPv6 {
			return nil, errors.New("type, code and id are of icmp and icmpv6")
		}
		if key != "type" {
			break
		}
		t, err := config.ParseICMPType(value, config.Protocol(protocol))
		if err != nil || t.Code == config.AnyCode {
			return []string{fmt.Sprintf("type=%d", t.Type)}, err
		}
		return []string{fmt.Sprintf("type=%d", t.Type), fmt.Sprintf("code=%d", t.Code)}, nil
	case "flags", "tcp_flags":
		letters, err := flagLetters(value)
		return []string{"flags=" + letters}, err
	case "fragment":
		return fragmentOption(value)
	case "vlan":
		if value == "untagged" {
			return nil, nil
		}
	}
	return []string{key + "=" + value}, nil
}

// flagLetters takes names of flags as well as letters. No name is made of letters alone.
func flagLetters(value string) (string, error) {
	upper := strings.ToUpper(value)
	if upper == "NONE" {
		return "none", nil
	}
	if value != "" && strings.Trim(upper, packet.FlagLetters) == "" {
		return upper, nil
	}
	var set uint8
	for _, name := range strings.Split(value, ",") {
		bit, clear, err := config.ParseTCPFlag(name)
		if err != nil {
			return "", fmt.Errorf("%w; or letters of %s; or none", err, packet.FlagLetters)
		}
		if !clear {
			set |= bit
		}
	}
	return packet.FlagText(set), nil
}

// fragmentOption is a fragment as fragment: of a rule names it.
func fragmentOption(value string) ([]string, error) {
	f, err := config.ParseFragmentMatch(value)
	if err != nil {
		return nil, err
	}
	switch f {
	case config.FragmentWhole:
		return nil, nil
	case config.FragmentFirst:
		return []string{"frag=0+"}, nil
	case config.FragmentLater:
		return []string{"frag=1480"}, nil
	}
	return nil, errors.New("a fragment is a first or a later one: write fragment=first or fragment=later")
}
