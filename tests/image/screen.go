package image

import (
	"fmt"
	"strings"
	"testing"
)

// wipe is how the status screen begins each time that it is drawn.
const wipe = "\x1b[H\x1b[2J"

// Screen is what is to be seen on the serial line: what was said since it was last wiped.
func (m *Machine) Screen() string {
	said := m.Console()
	return said[max(0, strings.LastIndex(said, wipe)):]
}

// Shows waits until the status screen has it, and returns the screen.
func (m *Machine) Shows(t testing.TB, what string) (screen string) {
	t.Helper()
	m.Eventually(t, func() string {
		if screen = strings.TrimPrefix(m.Screen(), wipe); !strings.Contains(screen, what) {
			return fmt.Sprintf("the status screen does not show %q:\n%s", what, screen)
		}
		return ""
	})
	return screen
}

// Redrawn waits until the status screen is drawn anew.
func (m *Machine) Redrawn(t testing.TB) {
	t.Helper()
	before := strings.Count(m.Console(), wipe)
	m.Eventually(t, func() string {
		if strings.Count(m.Console(), wipe) <= before {
			return "the status screen is not drawn"
		}
		return ""
	})
}
