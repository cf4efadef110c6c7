// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"buildtool/sigverify/internal/strict"
)

// The vectors of the specification, which all implementations pass.
type vectors struct {
	Now        time.Time                    `json:"now"`
	Trust      map[string]map[string]string `json:"trust"`
	BadTrust   map[string]map[string]string `json:"badTrust"`
	Vectors    []vector                     `json:"vectors"`
	Signatures []struct{ Name, Expect, Key, Message, Signature string }
}

type vector struct {
	Name, Expect, Trust, Platform string
	File                          []byte
}

func readVectors(t testing.TB) *vectors {
	t.Helper()
	data, err := os.ReadFile("../../tests/vectors/vectors.json")
	if err != nil {
		t.Fatalf("the tests run in a checkout of the repository: %v", err)
	}
	found := &vectors{}
	if err := json.Unmarshal(data, found); err != nil {
		t.Fatal(err)
	}
	// An empty list would prove nothing.
	if len(found.Vectors) < 500 || len(found.BadTrust) < 80 || len(found.Signatures) < 40 {
		t.Fatalf("%d vectors, %d bad stores", len(found.Vectors), len(found.BadTrust))
	}
	return found
}

func (v *vectors) find(t testing.TB, name string) vector {
	t.Helper()
	for _, found := range v.Vectors {
		if found.Name == name {
			return found
		}
	}
	t.Fatalf("no vector %s", name)
	return vector{}
}

func writeStore(t testing.TB, files map[string]string) string {
	t.Helper()
	directory := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

func openStore(t testing.TB, files map[string]string) *Trust {
	t.Helper()
	trust, err := OpenTrust(writeStore(t, files))
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func (v *vectors) stores(t testing.TB) map[string]*Trust {
	t.Helper()
	stores := map[string]*Trust{}
	for name, files := range v.Trust {
		stores[name] = openStore(t, files)
	}
	return stores
}

// decide returns the reason of a refusal, or "accepted".
func decide(t testing.TB, statement *Statement, err error) string {
	t.Helper()
	var refused *RefusedError
	if errors.As(err, &refused) && statement == nil {
		return string(refused.Reason)
	}
	if err != nil || statement == nil {
		t.Fatalf("neither accepted nor refused: %v, %v", statement, err)
	}
	return "accepted"
}

func TestVectors(t *testing.T) {
	all := readVectors(t)
	stores := all.stores(t)
	for _, v := range all.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			statement, err := Verify(v.File, stores[v.Trust], Options{Platform: v.Platform, Now: all.Now})
			if found := decide(t, statement, err); found != v.Expect {
				t.Errorf("%s, not %s", found, v.Expect)
			}
		})
	}
}

func TestBadTrustStoresAreErrors(t *testing.T) {
	for name, files := range readVectors(t).BadTrust {
		t.Run(name, func(t *testing.T) {
			if trust, err := OpenTrust(writeStore(t, files)); err == nil || trust != nil {
				t.Errorf("the store opened: %v", trust)
			}
		})
	}
}

func TestSignatures(t *testing.T) {
	for _, v := range readVectors(t).Signatures {
		t.Run(v.Name, func(t *testing.T) {
			key, message, signature := unhex(t, v.Key), unhex(t, v.Message), unhex(t, v.Signature)
			found := "weak-key"
			if strict.IsKey(key) {
				found = "bad-signature"
				if strict.Verify(key, message, signature) {
					found = "good"
				}
			}
			if found != v.Expect {
				t.Errorf("%s, not %s", found, v.Expect)
			}
		})
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
