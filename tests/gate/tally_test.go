package main

import (
	"bytes"
	"strings"
	"testing"
)

// events writes a transcript in short: "action package test", one a line; a fourth word and more is output.
func events(short string) string {
	var b strings.Builder
	for line := range strings.Lines(short) {
		f := append(strings.SplitN(strings.TrimSpace(line), " ", 4), "", "", "")
		if f[0] == "" {
			continue
		}
		b.WriteString(`{"Action":"` + f[0] + `","Package":"` + f[1] + `","Test":"` + f[2] + `","Output":"` + f[3] + "\"}\n")
	}
	return b.String()
}

func TestTallyJudgesARun(t *testing.T) {
	for _, c := range []struct {
		name    string
		events  string
		summary string
		ok      bool
		says    string // a part of what is printed
	}{{
		name:    "a passing test is enough",
		events:  "start p\n run p TestA\n pass p TestA\n pass p",
		summary: "1 passed, 0 failed", ok: true,
		says: "1 tests  p",
	}, {
		name:    "a failing test fails it and shows its output",
		events:  "start p\n run p TestA\n output p TestA got_1_want_2\n fail p TestA\n run p TestB\n pass p TestB\n fail p",
		summary: "1 passed, 1 failed",
		says:    "| got_1_want_2",
	}, {
		name:    "a skip fails it and shows its reason",
		events:  "start p\n run p TestA\n output p TestA not_root\n skip p TestA\n run p TestB\n pass p TestB\n pass p",
		summary: "1 passed, 0 failed, 1 skipped",
		says:    "| not_root",
	}, {
		name:    "a skipped subtest fails it though its parent passes",
		events:  "run p TestA\n run p TestA/one\n skip p TestA/one\n run p TestA/two\n pass p TestA/two\n pass p TestA\n pass p",
		summary: "1 passed, 0 failed, 1 skipped",
		says:    "SKIP p TestA/one",
	}, {
		name:    "a test with subtests is its subtests, whose names may hold slashes",
		events:  "run p TestA\n run p TestA/10.0.0.0/8\n pass p TestA/10.0.0.0/8\n run p TestA/b\n pass p TestA/b\n pass p TestA\n pass p",
		summary: "2 passed, 0 failed", ok: true,
	}, {
		name:    "a failure two levels down counts once",
		events:  "run p TestA\n run p TestA/b\n run p TestA/b/c\n fail p TestA/b/c\n fail p TestA/b\n fail p TestA\n fail p",
		summary: "0 passed, 1 failed",
		says:    "FAIL p TestA/b/c",
	}, {
		name:    "a parent that fails by itself counts beside its subtests",
		events:  "run p TestA\n run p TestA/b\n pass p TestA/b\n fail p TestA\n fail p",
		summary: "1 passed, 1 failed",
		says:    "FAIL p TestA",
	}, {
		name:    "a test that never reports is a failure even in a package that passes",
		events:  "run p TestA\n pass p TestA\n run p TestB\n pass p",
		summary: "1 passed, 1 failed",
		says:    "p TestB: never reported a result",
	}, {
		name:    "a package that fails around its tests is a failure",
		events:  "run p TestA\n pass p TestA\n output p  DATA_RACE\n fail p",
		summary: "1 passed, 1 failed",
		says:    "failed outside of its tests",
	}, {
		name:    "a package that has tests and runs none is a failure",
		events:  "start p\n pass p\n run q TestA\n pass q TestA\n pass q",
		summary: "1 passed, 1 failed",
		says:    "p: has test files but ran no test",
	}, {
		name:    "a package without test files is nothing",
		events:  "start p\n skip p\n run q TestA\n pass q TestA\n pass q",
		summary: "1 passed, 0 failed", ok: true,
	}, {
		name:    "a stream that breaks off is a failure",
		events:  "start p\n run p TestA\n pass p TestA",
		summary: "1 passed, 1 failed",
		says:    "p: never ended",
	}, {
		name:    "no test at all is a failure",
		events:  "",
		summary: "0 passed, 0 failed",
		says:    "No test ran",
	}, {
		name:    "side by side packages keep their output apart",
		events:  "run p TestA\n run q TestA\n output p TestA of_p\n output q TestA of_q\n pass q TestA\n fail p TestA\n pass q\n fail p",
		summary: "1 passed, 1 failed",
		says:    "  p\n     | of_p\n",
	}} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			tally := NewTally(&out)
			if err := tally.Read(strings.NewReader(strings.ReplaceAll(events(c.events), `_`, ` `))); err != nil {
				t.Fatal(err)
			}
			tally.Report()
			if got := tally.Summary(); got != c.summary {
				t.Errorf("summary %q, want %q", got, c.summary)
			}
			if tally.OK() != c.ok {
				t.Errorf("OK is %v, want %v", tally.OK(), c.ok)
			}
			if says := strings.ReplaceAll(c.says, "_", " "); !strings.Contains(out.String(), says) {
				t.Errorf("%q is missing in:\n%s", says, out.String())
			}
			if !strings.HasSuffix(out.String(), "\n"+c.summary+"\n") {
				t.Errorf("the last line is not the summary:\n%s", out.String())
			}
		})
	}
}

func TestReportNamesTheTenSlowestTests(t *testing.T) {
	var in strings.Builder
	for i := range 12 {
		name := "Test" + string(rune('A'+i))
		in.WriteString(`{"Action":"run","Package":"p","Test":"` + name + "\"}\n")
		in.WriteString(`{"Action":"pass","Package":"p","Test":"` + name + `","Elapsed":` + string(rune('0'+i%10)) + "}\n")
	}
	in.WriteString(`{"Action":"pass","Package":"p"}` + "\n")
	var out bytes.Buffer
	tally := NewTally(&out)
	if err := tally.Read(strings.NewReader(in.String())); err != nil {
		t.Fatal(err)
	}
	tally.Report()
	if got := strings.Count(out.String(), "  p Test"); got != slowest {
		t.Errorf("%d slow tests named, want %d:\n%s", got, slowest, out.String())
	}
	if j, a := strings.Index(out.String(), "9.00s  p TestJ"), strings.Index(out.String(), "1.00s  p TestB"); j < 0 || a < j {
		t.Errorf("the slowest is not first:\n%s", out.String())
	}
}

// Whatever stands in the stream, it is read to its end, and it never holds without a test that passed.
func FuzzRead(f *testing.F) {
	f.Add([]byte(events("run p TestA\n pass p TestA\n pass p")))
	f.Add([]byte("not JSON\n{\"Action\":\"output\""))
	f.Add([]byte(events("run p TestA/b\n run p TestA\n skip p TestA/b\n fail p")))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		tally := NewTally(&out)
		if err := tally.Read(bytes.NewReader(in)); err != nil {
			t.Fatal(err)
		}
		tally.Report()
		if tally.OK() && !bytes.Contains(bytes.ToLower(in), []byte("pass")) {
			t.Fatalf("holds without a passing test: %q", in)
		}
	})
}
