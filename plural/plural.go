// Package plural counts things in the words of people.
package plural

import "fmt"

// Of is "1 prefix" or "2 prefixes".
func Of[N int | uint32 | uint64](n N, one, many string) string {
	return fmt.Sprintf("%d %s", n, Word(n, one, many))
}

// Word is the word alone, for who writes the number elsewhere: "1 of 2 prefixes".
func Word[N int | uint32 | uint64](n N, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
