// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"encoding/json"
	"slices"
	"testing"
)

// FuzzVerify gives any bytes to the whole verification. A finding is a panic, a hang, or an object that is
// neither accepted nor refused.
func FuzzVerify(f *testing.F) {
	all := readVectors(f)
	stores, names := all.stores(f), []string{}
	for name := range stores {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, v := range all.Vectors {
		f.Add(uint8(slices.Index(names, v.Trust)), v.File)
	}
	f.Fuzz(func(t *testing.T, store uint8, data []byte) {
		trust := stores[names[int(store)%len(names)]]
		statement, err := Verify(data, trust, Options{Platform: AnyPlatform, Now: all.Now})
		decide(t, statement, err)
	})
}

// FuzzContents gives any bytes to what a good signature protects: the statement, and the readers of code and
// maps under a policy with every rule.
func FuzzContents(f *testing.F) {
	for _, v := range readVectors(f).Vectors {
		f.Add(v.File)
	}
	trust := &Trust{
		programTypes:  []string{"xdp", structOps},
		attachPoints:  []string{"*"},
		deniedHelpers: map[int64]bool{131: true},
		deniedKfuncs:  map[string]bool{"bpf_rcu_read_lock": true},
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := parseObject(data)
		if err != nil {
			return
		}
		decideAbout := func(err error) {
			if err != nil {
				decide(t, nil, err)
			}
		}
		st := &Statement{Helpers: []int64{1, 131}, Kfuncs: []string{"bpf_rcu_read_lock"}}
		decideAbout(checkCode(o, trust, st))
		decideAbout(checkMaps(o, trust))
		sig, err := o.checkSig()
		if o.sigCount == 0 || err != nil {
			return
		}
		if r, err := parseRecord(data[sig.offset : sig.offset+sig.size]); err == nil {
			_, _ = parseStatement(r.statement)
		}
	})
}

// FuzzTrust gives any bytes to the readers of policies and keys.
func FuzzTrust(f *testing.F) {
	all := readVectors(f)
	for _, stores := range []map[string]map[string]string{all.Trust, all.BadTrust} {
		for _, files := range stores {
			for _, text := range files {
				f.Add([]byte(text))
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		policy, policyErr := ParsePolicy(data)
		keys, keysErr := ParseKeys(data)
		if (policy == nil) != (policyErr != nil) || (keys == nil) != (keysErr != nil) || (policy != nil && keys != nil) {
			t.Errorf("%v %v, %v %v", policy, policyErr, keys, keysErr)
		}
	})
}

// FuzzJSON compares with encoding/json, which accepts more: what the strict parser reads, it reads alike.
func FuzzJSON(f *testing.F) {
	for _, v := range readVectors(f).Vectors {
		if o, err := parseObject(v.File); err == nil && o.sigCount == 1 {
			sig := o.section(o.sigIndex)
			if r, err := parseRecord(v.File[sig.offset : sig.offset+sig.size]); err == nil {
				f.Add(r.statement)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, err := parseJSON(data)
		if err != nil {
			return
		}
		var theirs members
		if err := json.Unmarshal(data, &theirs); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		if !isEqual(ours, theirs) {
			t.Errorf("%v, not %v", ours, theirs)
		}
	})
}

// isEqual compares a value of the strict parser with one of encoding/json, whose numbers are float64. These
// are exact up to 2^53.
func isEqual(ours, theirs any) bool {
	switch value := ours.(type) {
	case members:
		other, ok := theirs.(members)
		for name, item := range value {
			found, has := other[name]
			ok = ok && has && isEqual(item, found)
		}
		return ok && len(value) == len(other)
	case []any:
		other, ok := theirs.([]any)
		return ok && slices.EqualFunc(value, other, isEqual)
	case int64:
		other, ok := theirs.(float64)
		return ok && float64(value) == other
	}
	return ours == theirs
}
