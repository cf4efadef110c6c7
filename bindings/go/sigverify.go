// SPDX-License-Identifier: Apache-2.0

// Package sigverify decides whether an eBPF object may be loaded. It implements spec/sig-section.md and
// spec/trust-policy.md of buildtool with Go's standard library alone.
//
// The package keeps no state and starts nothing. Load the verified bytes from the same slice, because a file
// that is opened again can be another file. README.md lists the duties of the caller.
package sigverify

import (
	"fmt"
	"runtime"
	"time"
)

// MaxObjectBytes is the largest size of an object (spec/sig-section.md, section 1). A policy can lower it.
const MaxObjectBytes = 64 << 20

// AnyPlatform is the Options.Platform that accepts objects of every platform.
const AnyPlatform = "any"

// Reason is the reason of a refusal. The words are an API (spec/sig-section.md, section 8).
type Reason string

// The reasons of a refusal.
const (
	Unsigned       Reason = "unsigned"
	Malformed      Reason = "malformed"
	UnknownKey     Reason = "unknown-key"
	BadSignature   Reason = "bad-signature"
	DigestMismatch Reason = "digest-mismatch"
	WrongPlatform  Reason = "wrong-platform"
	Expired        Reason = "expired"
	NotYetValid    Reason = "not-yet-valid"
	RolledBack     Reason = "rolled-back"
	BelowThreshold Reason = "below-threshold"
	Revoked        Reason = "revoked"
	DeniedByPolicy Reason = "denied-by-policy"
	TooLarge       Reason = "too-large"
)

// RefusedError is the error for an object that must not be loaded.
type RefusedError struct {
	Reason  Reason
	Message string // one line for people
}

// Error returns one line with the reason and the message.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused: %s: %s", e.Reason, e.Message)
}

func refuse(reason Reason, format string, arguments ...any) error {
	return &RefusedError{Reason: reason, Message: fmt.Sprintf(format, arguments...)}
}

// Options are the circumstances of a verification. The zero value is the strict choice: this machine's
// platform and clock, and no versions seen before.
type Options struct {
	// Platform is the required OCI platform, for example "linux/arm64". Empty: that of this program.
	Platform string
	// Now is the time to which validities are compared. Zero: the present time.
	Now time.Time
	// VersionSeen returns the highest version of an object of a project that was accepted before, or 0.
	// Without the function, only the policy's minimumVersion refuses an old release.
	VersionSeen func(project, object string) int64
}

// platforms has the OCI platforms whose name is not linux/GOARCH.
var platforms = map[string]string{"arm": "linux/arm/v7"}

// HostPlatform returns the OCI platform that this program was compiled for, for example "linux/amd64".
func HostPlatform() string {
	if name, ok := platforms[runtime.GOARCH]; ok {
		return name
	}
	return "linux/" + runtime.GOARCH
}
