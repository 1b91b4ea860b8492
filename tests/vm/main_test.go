package vm

import (
	"fmt"
	"os"
	"testing"

	"sluice/tests/scratch"
)

// dir is Boot's of all guests. No test is parallel: an emulated processor is busy all the time, and two of them leave nothing to the
// packages that are tested beside this one.
var dir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if dir, err = scratch.Dir("sluice-guests"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		return m.Run()
	}())
}
