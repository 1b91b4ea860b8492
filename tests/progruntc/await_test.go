package progruntc_test

import (
	"testing"
	"time"
)

// awaitTrue asks again and again until the answer is yes.
func awaitTrue(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !ask(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never happened: %s", what)
		}
	}
}
