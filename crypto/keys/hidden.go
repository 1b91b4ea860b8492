package keys

import (
	"fmt"
	"log/slog"
)

// redacted is what every way of printing a secret shows.
const redacted = "[secret]"

// hidden is embedded in what holds a secret: no way of printing, formatting, logging or marshalling shows it.
type hidden struct{}

// String returns a placeholder.
func (hidden) String() string { return redacted }

// GoString returns a placeholder.
func (hidden) GoString() string { return redacted }

// Format writes a placeholder whatever the verb, %x and %d included.
func (hidden) Format(s fmt.State, _ rune) { fmt.Fprint(s, redacted) }

// LogValue returns a placeholder.
func (hidden) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON returns a placeholder.
func (hidden) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns a placeholder; XML and YAML use it.
func (hidden) MarshalText() ([]byte, error) { return []byte(redacted), nil }
