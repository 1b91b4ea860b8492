package report

import "fmt"

// Target is a ratio that was asked for.
type Target struct {
	What    string
	Limit   float64
	Stretch float64  // 0: none
	Got     Estimate // of the ratio
	Detail  string   // both costs, and what is missing
}

// Met says whether the median keeps the limit.
func (t Target) Met() bool { return t.Got.Median <= t.Limit }

// Verdict is one word or two, and by how much.
func (t Target) Verdict() string {
	switch {
	case !t.Got.Valid():
		return "not measured"
	case t.Stretch > 0 && t.Got.Median <= t.Stretch:
		return "met, stretch too"
	case t.Met():
		return fmt.Sprintf("met, by %.0f %%", 100*(1-t.Got.Median/t.Limit))
	}
	return fmt.Sprintf("**missed** by %.0f %%", 100*(t.Got.Median/t.Limit-1))
}

// TargetTable says of each target whether it is met; unit is that of the costs in Detail.
func TargetTable(unit string, targets []Target) string {
	var rows [][]string
	for _, t := range targets {
		limit := "at most " + Digits(t.Limit)
		if t.Stretch > 0 {
			limit += ", stretch " + Digits(t.Stretch)
		}
		rows = append(rows, []string{t.What, limit, t.Got.String(), t.Verdict(), t.Detail})
	}
	return Table([]string{"what", "target", "ratio", "", unit}, rows)
}
