// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"time"

	"buildtool/sigverify/internal/strict"
)

const clockToleranceSeconds = 24 * 60 * 60

var errNoTrust = errors.New("no trust store: open one with OpenTrust, ParsePolicy or ParseKeys")

// Verify returns the statement of an object that may be loaded. The numbered steps are those of
// spec/sig-section.md, section 7; the first that fails decides the reason of the RefusedError.
//
// A trust store that is nil or the zero value is an error, never an acceptance. Do not change the bytes
// between the verification and the load.
func Verify(data []byte, trust *Trust, options Options) (*Statement, error) {
	if trust == nil || len(trust.keys) == 0 {
		return nil, errNoTrust
	}
	now := options.Now
	if now.IsZero() {
		now = time.Now()
	}
	v := &verifier{trust: trust, options: options, now: max(now.Unix(), trust.earliest)}
	return v.verify(data)
}

type verifier struct {
	trust   *Trust
	options Options
	now     int64
}

func tooLarge(trust *Trust) error {
	return refuse(TooLarge, "larger than %d bytes", trust.maxObjectBytes)
}

func (v *verifier) verify(data []byte) (*Statement, error) {
	// (1)
	if len(data) > v.trust.maxObjectBytes {
		return nil, tooLarge(v.trust)
	}
	// (2)
	o, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	// (3)
	if o.sigCount == 0 {
		return nil, refuse(Unsigned, "no section .sig")
	}
	// (4)
	sig, err := o.checkSig()
	if err != nil {
		return nil, err
	}
	// (5)
	r, err := parseRecord(data[sig.offset : sig.offset+sig.size])
	if err != nil {
		return nil, err
	}
	// (6)
	if err := v.checkSignatures(r); err != nil {
		return nil, err
	}
	// (7)
	counted, err := v.checkThreshold(r)
	if err != nil {
		return nil, err
	}
	// (8)
	st, err := parseStatement(r.statement)
	if err != nil {
		return nil, refuse(Malformed, "%s", err)
	}
	// (9)
	st.Digest = o.digest(sig)
	if hex.EncodeToString(st.Digest[:]) != st.digest {
		return nil, refuse(DigestMismatch, "the file is not the one that was signed")
	}
	// (10) (11) (12) (13)
	for _, key := range counted {
		st.KeyIDs = append(st.KeyIDs, key.id)
	}
	if err := v.checkPlatform(o, st); err != nil {
		return nil, err
	}
	if err := v.checkValidity(st, counted); err != nil {
		return nil, err
	}
	if err := v.checkPolicy(o, st); err != nil {
		return nil, err
	}
	if err := v.checkVersion(st); err != nil {
		return nil, err
	}
	return st, nil
}

// checkSignatures does step 6: a bad signature under a trusted key refuses the object, even if another
// signature is valid.
func (v *verifier) checkSignatures(r *record) error {
	input := r.signingInput()
	for _, entry := range r.entries {
		key := v.trust.find(entry.keyID)
		if key != nil && !strict.Verify(key.public, input, entry.signature) {
			return refuse(BadSignature, "the signature of trusted key %x does not verify", entry.keyID)
		}
	}
	return nil
}

// checkThreshold does step 7 and returns the keys that counted: only keys that are valid now. Of the other
// keys' problems, the first in this order is the reason.
func (v *verifier) checkThreshold(r *record) ([]*trustedKey, error) {
	var counted []*trustedKey
	var revoked, past, before bool
	for _, entry := range r.entries {
		key := v.trust.find(entry.keyID)
		switch {
		case key == nil:
		case key.revoked:
			revoked = true
		case v.now > key.notAfter:
			past = true
		case v.now < key.notBefore:
			before = true
		default:
			counted = append(counted, key)
		}
	}
	switch {
	case len(counted) >= v.trust.threshold:
		return counted, nil
	case len(counted) > 0:
		return nil, refuse(BelowThreshold, "%d of %d trusted keys signed", len(counted), v.trust.threshold)
	case revoked:
		return nil, refuse(Revoked, "signed with a revoked key")
	case past:
		return nil, refuse(Expired, "signed with a key past its validity")
	case before:
		return nil, refuse(NotYetValid, "signed with a key that is not valid yet")
	}
	return nil, refuse(UnknownKey, "no trusted key signed")
}

// checkPlatform does step 10. linux/s390x is the only big-endian platform.
func (v *verifier) checkPlatform(o *object, st *Statement) error {
	wanted := v.options.Platform
	if wanted == "" {
		wanted = HostPlatform()
	}
	if wanted != AnyPlatform && wanted != st.Platform {
		return refuse(WrongPlatform, "signed for %.64q, this is %s", st.Platform, wanted)
	}
	if o.isBigEndian() != (st.Platform == "linux/s390x") {
		return refuse(WrongPlatform, "the byte order is not that of the platform")
	}
	return nil
}

// checkValidity does step 11: a clock that is not set (1970) cannot show that a validity has ended.
func (v *verifier) checkValidity(st *Statement, counted []*trustedKey) error {
	limited := st.NotAfter != nil
	if limited && v.now > st.NotAfter.Unix() {
		return refuse(Expired, "past the notAfter of its statement")
	}
	for _, key := range counted {
		limited = limited || key.notAfter != math.MaxInt64
	}
	if limited && !v.trust.clockUnsetOK && v.now < st.Created.Unix()-clockToleranceSeconds {
		return refuse(NotYetValid, "the clock is not set, and the validity is limited")
	}
	return nil
}

// checkPolicy does step 12. code.go has its rules about instructions, maps.go its rules about maps.
func (v *verifier) checkPolicy(o *object, st *Statement) error {
	t := v.trust
	if t.project != "" && t.project != st.Project {
		return refuse(DeniedByPolicy, "signed for project %s, not %s", st.Project, t.project)
	}
	if t.platforms != nil && !slices.Contains(t.platforms, st.Platform) {
		return refuse(DeniedByPolicy, "platform %.64q is not allowed", st.Platform)
	}
	for _, program := range st.Programs {
		if !t.allowsType(program.Type) {
			return refuse(DeniedByPolicy, "program %.64q of type %.64q is not allowed", program.Name, program.Type)
		}
	}
	for _, entry := range st.Maps {
		if entry.Type == structOps && !t.allowsType(structOps) {
			return refuse(DeniedByPolicy, "map %.64q of type %s is not allowed", entry.Name, structOps)
		}
	}
	if err := checkCode(o, t, st); err != nil {
		return err
	}
	return checkMaps(o, t)
}

// checkVersion does step 13.
func (v *verifier) checkVersion(st *Statement) error {
	if least := v.trust.minimums[st.Name]; st.Version < least {
		return refuse(RolledBack, "version %d of %s is older than %d", st.Version, st.Name, least)
	}
	if v.options.VersionSeen == nil || v.trust.allowRollback {
		return nil
	}
	if seen := v.options.VersionSeen(st.Project, st.Name); st.Version < seen {
		return refuse(RolledBack, "version %d of %s is older than %d, accepted before", st.Version, st.Name, seen)
	}
	return nil
}
