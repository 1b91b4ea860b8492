package image

import (
	"fmt"
	"os"
	"testing"

	"sluice/tests/nstest"
	"sluice/tests/scratch"
)

func TestMain(m *testing.M) {
	if handlers, ok := roles[nstest.Role()]; ok {
		if err := nstest.Serve(handlers); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(func() int {
		dir, err := scratch.Dir("sluice-machines")
		if err == nil {
			err = os.Setenv("TMPDIR", dir) // t.TempDir's parent: a killed run leaves nothing that the next one does not remove
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		return m.Run()
	}())
}
