package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// header is what the C headers declare, in the order of their text. Only names come from the text; what they mean is
// asked of the compiler.
type header struct {
	types    []cType
	defines  []string
	comments map[string]string // "rule.ttl" -> the comment behind the field
}

type cType struct{ kind, name string } // kind: struct, union or enum

var (
	typeLine   = regexp.MustCompile(`^(struct|union|enum) (\w+) \{`)
	defineLine = regexp.MustCompile(`^#define ([A-Z][A-Z0-9_]*)[ \t]+[(0-9A-Z]`)
	fieldLine  = regexp.MustCompile(`^\s+[\w ]+?(\w+)(?:\[\w+\])?;\s*/\* (.*) \*/$`)
)

// scan reads sluice/abi.h with its parts, and the constants of sluice/reason.h. enum reason has a file of its own.
func scan(include string) (*header, error) {
	h := &header{comments: map[string]string{}}
	for _, name := range []string{"abi.h", "abi_classify.h", "abi_actions.h", "abi_flowspec.h", "abi_flow.h", "abi_snat.h", "abi_pace.h", "abi_watch.h", "reason.h"} {
		text, err := os.ReadFile(filepath.Join(include, "sluice", name))
		if err != nil {
			return nil, err
		}
		h.scanText(string(text))
	}
	return h, nil
}

func (h *header) scanText(text string) {
	within := ""
	for line := range strings.SplitSeq(text, "\n") {
		if m := typeLine.FindStringSubmatch(line); m != nil && m[2] != "reason" {
			h.types = append(h.types, cType{kind: m[1], name: m[2]})
			within = m[2]
		} else if m := defineLine.FindStringSubmatch(line); m != nil {
			h.defines = append(h.defines, m[1])
		} else if m := fieldLine.FindStringSubmatch(line); m != nil && within != "" {
			h.comments[within+"."+m[1]] = m[2]
		} else if strings.HasPrefix(line, "}") {
			within = ""
		}
	}
}

// goName turns class_bits and MAX_RULES into ClassBits and MaxRules.
func goName(c string) string {
	var out strings.Builder
	for word := range strings.SplitSeq(strings.ToLower(c), "_") {
		switch word {
		case "id", "mss", "sack", "ip4", "ip6", "l3", "l4", "icmp", "mtu", "ttl", "vlan", "tcp", "dscp", "syn":
			out.WriteString(strings.ToUpper(word))
		case "ids":
			out.WriteString("IDs")
		case "":
		default:
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}
