// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// Bounds of spec/sig-section.md, section 6, Settable.
const (
	maxSettable        = 128
	maxSettableValues  = 64
	maxSettableBytes   = 4096
	maxSettableEntries = 1<<32 - 1
	maxIntegerText     = 20
	maxSettingText     = 24
	innerSuffix        = ".inner" // libbpf's name of the map inside a map of maps
)

// Settable is what the machine that loads an object may set, and within which bounds.
type Settable struct {
	Variables []SettableVariable // in the order of their names
	Maps      []SettableMap      // in the order of their names
}

// SettableVariable is a constant (const volatile) that may be set.
type SettableVariable struct {
	Name     string
	Type     string     // "boolean", "integer" or "string"
	Min, Max *big.Int   // of an integer without Values, else nil
	Values   []*big.Int // that an integer may have, ascending; or nil
	MaxBytes int64      // of a string
}

// SettableMap is a map with a number of entries that may be set.
type SettableMap struct {
	Name                   string
	MinEntries, MaxEntries int64
}

// Allows returns whether the variable may have the value: true or false, an integer (decimal, or hexadecimal
// after 0x), or a string of printable ASCII.
func (v *SettableVariable) Allows(value string) bool {
	switch v.Type {
	case "boolean":
		return value == "true" || value == "false"
	case "string":
		printable := func(r rune) bool { return r >= ' ' && r <= '~' }
		return int64(len(value)) <= v.MaxBytes && strings.IndexFunc(value, func(r rune) bool { return !printable(r) }) < 0
	}
	number, ok := parseSetting(value)
	if !ok {
		return false
	}
	if v.Values != nil {
		return slices.ContainsFunc(v.Values, func(one *big.Int) bool { return one.Cmp(number) == 0 })
	}
	return v.Min.Cmp(number) <= 0 && number.Cmp(v.Max) <= 0
}

// AllowsValue returns whether the signers let the variable have the value, as SettableVariable.Allows says.
func (st *Statement) AllowsValue(variable, value string) bool {
	if st.Settable == nil {
		return false
	}
	at := slices.IndexFunc(st.Settable.Variables, func(v SettableVariable) bool { return v.Name == variable })
	return at >= 0 && st.Settable.Variables[at].Allows(value)
}

// AllowsEntries returns whether the signers let the map have so many entries. The name of the map inside a
// map of maps is that of the outer map, and ".inner".
func (st *Statement) AllowsEntries(name string, entries uint32) bool {
	if st.Settable == nil {
		return false
	}
	at := slices.IndexFunc(st.Settable.Maps, func(m SettableMap) bool { return m.Name == name })
	return at >= 0 && st.Settable.Maps[at].MinEntries <= int64(entries) && int64(entries) <= st.Settable.Maps[at].MaxEntries
}

var settableMembers = []member{
	{name: "variables", is: isArray, optional: true},
	{name: "maps", is: isArray, optional: true},
}

var namedMembers = []member{
	{name: "name", is: isObjectName},
	{name: "type", is: isOne("boolean", "integer", "string")},
}

var rangeMembers = append(namedMembers[:2:2], member{name: "min", is: isIntegerText}, member{name: "max", is: isIntegerText})
var valuesMembers = append(namedMembers[:2:2], member{name: "values", is: isValueList})
var stringMembers = append(namedMembers[:2:2], member{name: "maxBytes", is: isFrom1To(maxSettableBytes)})

var mapSizeMembers = []member{
	{name: "name", is: isObjectName},
	{name: "minEntries", is: isFrom1To(maxSettableEntries)},
	{name: "maxEntries", is: isFrom1To(maxSettableEntries)},
}

// parseSetting reads an integer as people write it: decimal, or hexadecimal after 0x.
func parseSetting(text string) (*big.Int, bool) {
	if len(text) > maxSettingText {
		return nil, false
	}
	digits, isNegative := strings.CutPrefix(text, "-")
	base, allowed := 10, "0123456789"
	if strings.HasPrefix(digits, "0x") || strings.HasPrefix(digits, "0X") {
		digits, base, allowed = digits[2:], 16, "0123456789abcdefABCDEF"
	}
	if digits == "" || strings.Trim(digits, allowed) != "" {
		return nil, false
	}
	number, ok := new(big.Int).SetString(digits, base)
	if !ok {
		return nil, false
	}
	if isNegative {
		number.Neg(number)
	}
	return number, number.IsInt64() || number.IsUint64()
}

// parseIntegerText reads the one text of an integer from -2^63 to 2^64 - 1.
func parseIntegerText(value any) (*big.Int, bool) {
	text, ok := value.(string)
	if !ok || len(text) > maxIntegerText {
		return nil, false
	}
	number, ok := new(big.Int).SetString(text, 10)
	if !ok || number.String() != text {
		return nil, false
	}
	return number, number.IsInt64() || number.IsUint64()
}

func isIntegerText(value any) bool { _, ok := parseIntegerText(value); return ok }

func isValueList(value any) bool {
	items, ok := value.([]any)
	if !ok || len(items) < 1 || len(items) > maxSettableValues || !isItems(value, isIntegerText) {
		return false
	}
	numbers := integersOf(items)
	for i := 1; i < len(numbers); i++ {
		if numbers[i-1].Cmp(numbers[i]) >= 0 {
			return false
		}
	}
	return true
}

func integersOf(items []any) []*big.Int {
	numbers := make([]*big.Int, len(items))
	for i, item := range items {
		numbers[i], _ = parseIntegerText(item)
	}
	return numbers
}

func readVariable(value any) (SettableVariable, error) {
	const where = "settable variable"
	item, _ := value.(members)
	table := namedMembers
	_, hasValues := item["values"]
	switch kind := textOf(item, "type"); {
	case kind == "string":
		table = stringMembers
	case kind == "integer" && hasValues:
		table = valuesMembers
	case kind == "integer":
		table = rangeMembers
	}
	if _, err := checkMembers(value, where, table); err != nil {
		return SettableVariable{}, err
	}
	v := SettableVariable{Name: textOf(item, "name"), Type: textOf(item, "type"), MaxBytes: integerOf(item, "maxBytes")}
	if hasValues {
		v.Values = integersOf(item["values"].([]any))
	} else if v.Type == "integer" {
		v.Min, _ = parseIntegerText(item["min"])
		v.Max, _ = parseIntegerText(item["max"])
		if v.Min.Cmp(v.Max) > 0 {
			return v, fmt.Errorf("%s: min is above max", where)
		}
	}
	return v, nil
}

func (st *Statement) readMapSize(value any) (SettableMap, error) {
	const where = "settable map"
	item, err := checkMembers(value, where, mapSizeMembers)
	if err != nil {
		return SettableMap{}, err
	}
	m := SettableMap{
		Name:       textOf(item, "name"),
		MinEntries: integerOf(item, "minEntries"),
		MaxEntries: integerOf(item, "maxEntries"),
	}
	if m.MinEntries > m.MaxEntries {
		return m, fmt.Errorf("%s: minEntries is above maxEntries", where)
	}
	if !st.hasMap(m.Name) {
		return m, fmt.Errorf("%s: not among the maps", where)
	}
	return m, nil
}

// hasMap returns whether the object has the map, or the map of maps that it is inside of.
func (st *Statement) hasMap(name string) bool {
	outer, isInner := strings.CutSuffix(name, innerSuffix)
	return slices.ContainsFunc(st.Maps, func(m Map) bool {
		return m.Name == name ||
			(isInner && m.Name == outer && (m.Type == "array_of_maps" || m.Type == "hash_of_maps"))
	})
}

// readItems reads an array of 1 to 128 items in ascending order of their names.
func readItems[T any](value any, read func(any) (T, error), name func(T) string) ([]T, error) {
	items := value.([]any)
	if len(items) < 1 || len(items) > maxSettable {
		return nil, fmt.Errorf("settable: not 1 to %d items", maxSettable)
	}
	found := make([]T, len(items))
	for i, item := range items {
		var err error
		if found[i], err = read(item); err != nil {
			return nil, err
		}
		if i > 0 && name(found[i-1]) >= name(found[i]) {
			return nil, fmt.Errorf("settable: the names do not ascend")
		}
	}
	return found, nil
}

// readSettable reads the member, after the maps.
func (st *Statement) readSettable(body members) error {
	value, ok := body["settable"]
	if !ok {
		return nil
	}
	settable, err := checkMembers(value, "settable", settableMembers)
	if err != nil {
		return err
	}
	if len(settable) == 0 {
		return fmt.Errorf("settable: empty")
	}
	st.Settable = &Settable{}
	if items, ok := settable["variables"]; ok {
		st.Settable.Variables, err = readItems(items, readVariable, func(v SettableVariable) string { return v.Name })
		if err != nil {
			return err
		}
	}
	if items, ok := settable["maps"]; ok {
		st.Settable.Maps, err = readItems(items, st.readMapSize, func(m SettableMap) string { return m.Name })
	}
	return err
}
