// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const maxNameBytes = 128

// A check returns whether a JSON value is of a kind.
type check func(value any) bool

// member is a row of a table of spec/sig-section.md, section 6, or of spec/trust-policy.md.
type member struct {
	name     string
	is       check
	optional bool
}

// checkMembers returns the object if it has exactly the members of the table, each of its kind.
func checkMembers(value any, where string, table []member) (members, error) {
	found, ok := value.(members)
	if !ok {
		return nil, fmt.Errorf("%s: not an object", where)
	}
	known := 0
	for _, row := range table {
		item, ok := found[row.name]
		if !ok && row.optional {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("%s: %s is missing", where, row.name)
		}
		if !row.is(item) {
			return nil, fmt.Errorf("%s: %s is wrong", where, row.name)
		}
		known++
	}
	if known != len(found) {
		return nil, fmt.Errorf("%s: unknown member", where)
	}
	return found, nil
}

func isString(value any) bool  { _, ok := value.(string); return ok }
func isArray(value any) bool   { _, ok := value.([]any); return ok }
func isObject(value any) bool  { _, ok := value.(members); return ok }
func isBoolean(value any) bool { _, ok := value.(bool); return ok }

// The parser accepts no integer outside 0 to 2^53 - 1.
func isInteger(value any) bool { _, ok := value.(int64); return ok }

// is returns a check that a value is one of the words.
func isOne(words ...string) check {
	return func(value any) bool {
		text, ok := value.(string)
		return ok && slices.Contains(words, text)
	}
}

// isFrom1To returns a check that a value is an integer from 1 to the limit.
func isFrom1To(limit int64) check {
	return func(value any) bool {
		number, ok := value.(int64)
		return ok && number >= 1 && number <= limit
	}
}

func isItems(value any, is check) bool {
	items, ok := value.([]any)
	return ok && !slices.ContainsFunc(items, func(item any) bool { return !is(item) })
}

func isStrings(value any) bool { return isItems(value, isString) }

// isStringSet accepts strings that strictly ascend as UTF-8 bytes, which is the order of Go's strings.
func isStringSet(value any) bool {
	return isStrings(value) && ascends(texts(value))
}

func isIntegerSet(value any) bool {
	return isItems(value, isInteger) && ascends(integers(value))
}

func ascends[T int64 | string](items []T) bool {
	for i := 1; i < len(items); i++ {
		if items[i-1] >= items[i] {
			return false
		}
	}
	return true
}

func isLetterOrDigit(c byte) bool {
	return isDigit(c) || (c|0x20 >= 'a' && c|0x20 <= 'z')
}

func isName(value any, others string) bool {
	text, ok := value.(string)
	if !ok || len(text) < 1 || len(text) > maxNameBytes {
		return false
	}
	for _, c := range []byte(text) {
		if !isLetterOrDigit(c) && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

func isObjectName(value any) bool {
	return isName(value, "._-") && value.(string)[0] != '.' && value.(string)[0] != '-'
}

func isProject(value any) bool { return isName(value, "._-/") }

func isSHA256(value any) bool {
	text, ok := value.(string)
	return ok && len(text) == 64 && strings.Trim(text, "0123456789abcdef") == ""
}

func isTime(value any) bool { _, ok := parseTime(value); return ok }

// parseTime returns the seconds since 1970 of YYYY-MM-DDTHH:MM:SSZ, from 1970 on.
func parseTime(value any) (int64, bool) {
	const form = "2006-01-02T15:04:05Z"
	text, ok := value.(string)
	if !ok || len(text) != len(form) {
		return 0, false
	}
	for i, c := range []byte(form) {
		if isDigit(c) != isDigit(text[i]) || (!isDigit(c) && c != text[i]) {
			return 0, false
		}
	}
	found, err := time.Parse(form, text)
	if err != nil || found.Year() < 1970 {
		return 0, false
	}
	return found.Unix(), true
}

// texts returns the strings of a checked array, and nil if there is none.
func texts(value any) []string { return items[string](value) }

// integers returns the integers of a checked array, and nil if there is none.
func integers(value any) []int64 { return items[int64](value) }

func items[T any](value any) []T {
	array, ok := value.([]any)
	if !ok {
		return nil
	}
	found := make([]T, len(array))
	for i, item := range array {
		found[i], _ = item.(T)
	}
	return found
}

// textOf returns a checked string member, and "" if it is absent.
func textOf(object members, name string) string {
	text, _ := object[name].(string)
	return text
}

func integerOf(object members, name string) int64 {
	number, _ := object[name].(int64)
	return number
}
