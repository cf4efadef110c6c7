// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"buildtool/sigverify/internal/strict"
)

const (
	maxKeys        = 64
	maxThreshold   = 16
	maxPoints      = 256
	maxPolicyBytes = 1 << 20
	maxKeyBytes    = 4096
	derPrefix      = "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"
	pemBegin       = "-----BEGIN PUBLIC KEY-----"
	pemEnd         = "-----END PUBLIC KEY-----"
	pemSpace       = " \t\r\n"
)

var errNoKey = errors.New("no public key in it")

// trustedKey is valid from notBefore to notAfter, both included, unless it is revoked.
type trustedKey struct {
	id                  [keyIDSize]byte
	public              []byte
	notBefore, notAfter int64
	revoked             bool
}

// Trust is a trust store of spec/trust-policy.md: the trusted keys and the rules of a policy. It never
// changes, so several goroutines may use it. The zero value trusts nothing.
type Trust struct {
	keys           []trustedKey
	digest         [sha256.Size]byte
	threshold      int
	maxObjectBytes int
	project        string // "": any
	minimums       map[string]int64

	// A rule that the policy lacks is nil. An empty list is a rule that allows nothing.
	platforms, programTypes, attachPoints []string
	deniedHelpers                         map[int64]bool
	deniedKfuncs                          map[string]bool

	allowRollback bool
	clockUnsetOK  bool
	ignoresImage  bool
	earliest      int64
}

var policyMembers = []member{
	{name: "policyVersion", is: isFrom1To(1)},
	{name: "threshold", is: isFrom1To(maxThreshold)},
	{name: "keys", is: isArray},
	{name: "project", is: isProject, optional: true},
	{name: "platforms", is: isStrings, optional: true},
	{name: "objects", is: isObject, optional: true},
	{name: "programTypes", is: isStrings, optional: true},
	{name: "attachPoints", is: isPatterns, optional: true},
	{name: "deniedHelpers", is: isIntegerSet, optional: true},
	{name: "deniedKfuncs", is: isStringSet, optional: true},
	{name: "maxObjectBytes", is: isFrom1To(MaxObjectBytes), optional: true},
	{name: "allowRollback", is: isBoolean, optional: true},
	{name: "clock", is: isOne("required", "unset-ok"), optional: true},
	{name: "earliest", is: isTime, optional: true},
	{name: "imageRules", is: isOne("combine", "ignore"), optional: true},
}

var keyMembers = []member{
	{name: "name", is: isString},
	{name: "publicKey", is: isString},
	{name: "notBefore", is: isTime, optional: true},
	{name: "notAfter", is: isTime, optional: true},
	{name: "revoked", is: isBoolean, optional: true},
}

var minimumMembers = []member{
	{name: "minimumVersion", is: isInteger},
}

// isPatterns accepts attach points, which contain * only at their ends.
func isPatterns(value any) bool {
	if !isStrings(value) || len(value.([]any)) > maxPoints {
		return false
	}
	return !slices.ContainsFunc(texts(value), func(pattern string) bool {
		star := strings.IndexByte(pattern, '*')
		return pattern == "" || (star >= 0 && star != len(pattern)-1)
	})
}

func newTrust() *Trust {
	return &Trust{threshold: 1, maxObjectBytes: MaxObjectBytes}
}

// ParseKeys returns the store of public keys, each the text of one .pub file. Each key alone may sign any
// object. A key that is not Ed25519, that is weak, or that is given twice is an error.
func ParseKeys(pems ...[]byte) (*Trust, error) {
	t := newTrust()
	for _, pem := range pems {
		if err := t.addPEM(pem); err != nil {
			return nil, err
		}
	}
	return t.finishKeys()
}

// finishKeys checks a store without a policy, and computes its digest.
func (t *Trust) finishKeys() (*Trust, error) {
	if len(t.keys) == 0 {
		return nil, errNoKey
	}
	slices.SortFunc(t.keys, func(a, b trustedKey) int { return bytes.Compare(a.id[:], b.id[:]) })
	hash := sha256.New()
	for _, key := range t.keys {
		hash.Write(key.id[:])
	}
	hash.Sum(t.digest[:0])
	return t, nil
}

// ParsePolicy returns the store of a policy, the text of a policy.json. A policy that breaks a rule of
// spec/trust-policy.md is an error.
func ParsePolicy(data []byte) (*Trust, error) {
	if len(data) > maxPolicyBytes {
		return nil, errors.New("too large")
	}
	value, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	policy, err := checkMembers(value, "policy", policyMembers)
	if err != nil {
		return nil, err
	}
	t := newTrust()
	t.digest = sha256.Sum256(data)
	t.threshold = int(integerOf(policy, "threshold"))
	if largest, ok := policy["maxObjectBytes"].(int64); ok {
		t.maxObjectBytes = int(largest)
	}
	t.project = textOf(policy, "project")
	t.platforms = texts(policy["platforms"])
	t.programTypes = texts(policy["programTypes"])
	t.attachPoints = texts(policy["attachPoints"])
	t.deniedHelpers = set[int64](policy["deniedHelpers"])
	t.deniedKfuncs = set[string](policy["deniedKfuncs"])
	t.allowRollback, _ = policy["allowRollback"].(bool)
	t.clockUnsetOK = textOf(policy, "clock") == "unset-ok"
	t.ignoresImage = textOf(policy, "imageRules") == "ignore"
	t.earliest, _ = parseTime(policy["earliest"])
	if err := t.readMinimums(policy["objects"]); err != nil {
		return nil, err
	}
	for _, item := range policy["keys"].([]any) {
		if err := t.readKey(item); err != nil {
			return nil, err
		}
	}
	if len(t.keys) == 0 {
		return nil, errNoKey
	}
	return t, nil
}

// set returns the items of a checked array as a set, and nil if there is no array.
func set[T comparable](value any) map[T]bool {
	if value == nil {
		return nil
	}
	found := map[T]bool{}
	for _, item := range items[T](value) {
		found[item] = true
	}
	return found
}

func (t *Trust) readMinimums(value any) error {
	t.minimums = map[string]int64{}
	objects, _ := value.(members)
	for name, item := range objects {
		if !isObjectName(name) {
			return fmt.Errorf("objects: not an object name")
		}
		object, err := checkMembers(item, "objects", minimumMembers)
		if err != nil {
			return err
		}
		t.minimums[name] = integerOf(object, "minimumVersion")
	}
	return nil
}

func (t *Trust) readKey(value any) error {
	key, err := checkMembers(value, "key", keyMembers)
	if err != nil {
		return err
	}
	text := textOf(key, "publicKey")
	// The decoder of the standard library ignores line ends, which base64 of a policy must not have.
	if strings.ContainsAny(text, "\r\n") {
		return errors.New("publicKey: not an Ed25519 public key")
	}
	trusted := trustedKey{notBefore: math.MinInt64, notAfter: math.MaxInt64}
	if from, ok := parseTime(key["notBefore"]); ok {
		trusted.notBefore = from
	}
	if until, ok := parseTime(key["notAfter"]); ok {
		trusted.notAfter = until
	}
	trusted.revoked, _ = key["revoked"].(bool)
	return t.addKey(text, trusted)
}

// addKey adds a key whose DER is given in base64.
func (t *Trust) addKey(text string, key trustedKey) error {
	if len(t.keys) == maxKeys {
		return fmt.Errorf("more than %d keys", maxKeys)
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(der) != len(derPrefix)+strict.KeySize || string(der[:len(derPrefix)]) != derPrefix {
		return errors.New("publicKey: not an Ed25519 public key")
	}
	key.public = der[len(derPrefix):]
	if !strict.IsKey(key.public) {
		return errors.New("a weak Ed25519 public key")
	}
	key.id = sha256.Sum256(der)
	if t.find(key.id) != nil {
		return errors.New("a key that is there twice")
	}
	t.keys = append(t.keys, key)
	return nil
}

// find returns the key of an id, or nil.
func (t *Trust) find(id [keyIDSize]byte) *trustedKey {
	for i := range t.keys {
		if t.keys[i].id == id {
			return &t.keys[i]
		}
	}
	return nil
}

// addPEM accepts one PEM block and nothing else; its lines may end in CR LF.
func (t *Trust) addPEM(data []byte) error {
	text := strings.TrimLeft(string(data[:min(len(data), maxKeyBytes)]), pemSpace)
	text, begins := strings.CutPrefix(text, pemBegin)
	body, after, ends := strings.Cut(strings.TrimPrefix(text, "\r"), pemEnd)
	if len(data) > maxKeyBytes || !begins || !ends || !strings.HasPrefix(body, "\n") ||
		strings.Trim(after, pemSpace) != "" {
		return errors.New("not a PEM public key")
	}
	return t.addKey(body, trustedKey{notBefore: math.MinInt64, notAfter: math.MaxInt64})
}

// Digest returns the policy digest of decision lines: the SHA-256 of the policy, or of the sorted key ids.
func (t *Trust) Digest() [32]byte { return t.digest }

// MaxObjectBytes returns the size of the largest object that the store accepts.
func (t *Trust) MaxObjectBytes() int { return t.maxObjectBytes }

// AllowsPoint returns whether the policy allows an attach point. A loader that takes a target for a program
// from elsewhere than the section's name asks for "SECTION/TARGET" (spec/trust-policy.md, Targets).
func (t *Trust) AllowsPoint(name string) bool {
	if t.attachPoints == nil {
		return true
	}
	// A path with /../ could match a pattern's directory and lead out of it.
	if strings.Contains(name, "/../") {
		return false
	}
	return slices.ContainsFunc(t.attachPoints, func(pattern string) bool {
		start, isPrefix := strings.CutSuffix(pattern, "*")
		return (isPrefix && strings.HasPrefix(name, start)) || name == pattern
	})
}

func (t *Trust) allowsType(kind string) bool {
	return t.programTypes == nil || slices.Contains(t.programTypes, kind)
}

// String returns one line that describes the store: digest, threshold, largest object, project, earliest
// time, rule for clocks, and the keys. Each implementation of the specification has the same line.
func (t *Trust) String() string {
	project, clock := t.project, "required"
	if project == "" {
		project = "*"
	}
	if t.clockUnsetOK {
		clock = "unset-ok"
	}
	words := []string{
		fmt.Sprintf("%x %d %d %s %d %s", t.digest, t.threshold, t.maxObjectBytes, project, t.earliest, clock),
	}
	if t.allowRollback {
		words = append(words, "rollback")
	}
	if t.ignoresImage {
		words = append(words, "ignores-image")
	}
	for _, key := range t.keys {
		word := hex.EncodeToString(key.id[:])
		if key.notBefore != math.MinInt64 {
			word += fmt.Sprintf(",from=%d", key.notBefore)
		}
		if key.notAfter != math.MaxInt64 {
			word += fmt.Sprintf(",until=%d", key.notAfter)
		}
		if key.revoked {
			word += ",revoked"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}
