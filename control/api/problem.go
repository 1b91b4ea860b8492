package api

import (
	"errors"

	"sluice/control/config"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`   // from 1; 0: unknown
	Column  int    `json:"column,omitempty"` // from 1; 0: unknown
	Path    string `json:"path,omitempty"`   // YAML path
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what would be right
}

// String gives "edge.yaml:12:5: path: message; hint".
func (p Problem) String() string {
	pos := config.Pos{File: p.File, Line: p.Line, Column: p.Column}
	return config.Error{Pos: pos, Path: p.Path, Msg: p.Message, Hint: p.Hint}.Error()
}

// Problems returns the single errors of a bad file, be they found here or by the daemon; none for any other error.
func Problems(err error) []Problem {
	var answer *Failure
	if errors.As(err, &answer) {
		return answer.Problems
	}
	var list config.Errors
	if !errors.As(err, &list) {
		return nil
	}
	var out []Problem
	for _, e := range list {
		out = append(out, Problem{File: e.Pos.File, Line: e.Pos.Line, Column: e.Pos.Column, Path: e.Path, Message: e.Msg, Hint: e.Hint})
	}
	return out
}
