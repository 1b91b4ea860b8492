package config

import (
	"encoding/json"
	"reflect"
	"strings"
)

// schema is one JSON Schema object.
type schema map[string]any

// schemas collects the definitions of raw structs while the tree is walked.
type schemas struct{ defs map[string]any }

// Schema returns the JSON Schema (draft 2020-12) of the file, from the raw structs that Parse reads into. Whatever it
// refuses Parse refuses too; Parse also checks what a schema cannot say.
func Schema() []byte {
	s := &schemas{defs: map[string]any{}}
	top := s.object(reflect.TypeFor[rawConfig]())
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["title"] = "Sluice configuration"
	top["$defs"] = s.defs
	out, err := json.MarshalIndent(top, "", "  ")
	if err != nil {
		panic(err) // only strings, numbers, lists and maps went in
	}
	return append(out, '\n')
}

// of describes what a pointer to a part or a raw struct points to.
func (s *schemas) of(target any) schema {
	if p, ok := target.(part); ok {
		return p.schema(s)
	}
	t := reflect.TypeOf(target).Elem()
	name := strings.ToLower(strings.TrimPrefix(t.Name(), "raw"))
	if _, done := s.defs[name]; !done {
		s.defs[name] = s.object(t)
	}
	return schema{"$ref": "#/$defs/" + name}
}

func (s *schemas) object(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	for _, k := range keysOf(t) {
		properties[k.name] = s.of(reflect.New(t.FieldByIndex(k.field).Type).Interface())
		if k.required {
			required = append(required, k.name)
		}
	}
	out := schema{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// typed adds the JSON types of a leaf.
func (s schema) typed(t takes) schema {
	var types []string
	if t&text != 0 {
		types = append(types, "string")
	}
	if t&integer != 0 {
		types = append(types, "integer")
	}
	if t&boolean != 0 {
		types = append(types, "boolean")
	}
	if len(types) == 1 {
		s["type"] = types[0]
	} else {
		s["type"] = types
	}
	return s
}
