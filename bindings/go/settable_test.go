// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"math/big"
	"testing"
)

func settableStatement() *Statement {
	return &Statement{Settable: &Settable{
		Variables: []SettableVariable{
			{Name: "label", Type: "string", MaxBytes: 3},
			{Name: "mode", Type: "integer", Values: []*big.Int{big.NewInt(1), big.NewInt(5)}},
			{Name: "rate", Type: "integer", Min: big.NewInt(-2), Max: big.NewInt(10)},
			{Name: "verbose", Type: "boolean"},
		},
		Maps: []SettableMap{{Name: "counts", MinEntries: 16, MaxEntries: 64}},
	}}
}

func TestAllowsValue(t *testing.T) {
	st := settableStatement()
	for _, row := range []struct {
		variable, value string
		want            bool
	}{
		{"label", "a ~", true},
		{"label", "", true},
		{"label", "abcd", false},
		{"label", "\u00e9", false},
		{"label", "a\n", false},
		{"mode", "5", true},
		{"mode", "2", false},
		{"rate", "-2", true},
		{"rate", "10", true},
		{"rate", "-3", false},
		{"rate", "11", false},
		{"rate", "01", true},
		{"rate", "0xA", true},
		{"rate", "0xB", false},
		{"rate", "-0X2", true},
		{"rate", "0x", false},
		{"rate", "1_0", false},
		{"rate", "+1", false},
		{"rate", "", false},
		{"verbose", "true", true},
		{"verbose", "1", false},
		{"counts", "16", false},
		{"other", "1", false},
	} {
		if got := st.AllowsValue(row.variable, row.value); got != row.want {
			t.Errorf("%s=%q: %v", row.variable, row.value, got)
		}
	}
	if (&Statement{}).AllowsValue("rate", "1") {
		t.Error("a statement without the member allows a value")
	}
}

func TestAllowsEntries(t *testing.T) {
	st := settableStatement()
	for entries, want := range map[uint32]bool{15: false, 16: true, 64: true, 65: false, 1<<32 - 1: false} {
		if got := st.AllowsEntries("counts", entries); got != want {
			t.Errorf("%d entries: %v", entries, got)
		}
	}
	if st.AllowsEntries("rate", 16) || (&Statement{}).AllowsEntries("counts", 16) {
		t.Error("a map that is not settable")
	}
}
