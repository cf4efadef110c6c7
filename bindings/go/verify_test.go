// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A store that nobody filled must not accept, whatever its threshold.
func TestNoTrustIsNoAcceptance(t *testing.T) {
	data := readVectors(t).find(t, "plain").File
	for name, trust := range map[string]*Trust{"nil": nil, "zero": {}} {
		statement, err := Verify(data, trust, Options{Platform: AnyPlatform})
		if statement != nil || !errors.Is(err, errNoTrust) {
			t.Errorf("%s: %v, %v", name, statement, err)
		}
	}
	if _, _, err := VerifyFile("x", nil, Options{}); !errors.Is(err, errNoTrust) {
		t.Error(err)
	}
	if trust, err := ParseKeys(); trust != nil || !errors.Is(err, errNoKey) {
		t.Errorf("%v, %v", trust, err)
	}
}

func TestAnAcceptanceHasTheFacts(t *testing.T) {
	all := readVectors(t)
	v := all.find(t, "plain")
	st, err := Verify(v.File, openStore(t, all.Trust[v.Trust]), Options{Platform: v.Platform, Now: all.Now})
	if err != nil {
		t.Fatal(err)
	}
	if st.Name != "x.bpf.o" || st.Platform != "linux/amd64" || st.License != "GPL" || len(st.KeyIDs) != 1 {
		t.Errorf("%+v", st)
	}
	if st.KeyIDs[0] != openStore(t, all.Trust[v.Trust]).keys[0].id {
		t.Errorf("%x", st.KeyIDs)
	}
}

func TestTheZeroOptionsAreStrict(t *testing.T) {
	all := readVectors(t)
	v := all.find(t, "plain")
	trust := openStore(t, all.Trust[v.Trust])
	_, err := Verify(v.File, trust, Options{})
	if accepted := err == nil; accepted != (HostPlatform() == v.Platform) {
		t.Errorf("on %s: %v", HostPlatform(), err)
	}
	statement, err := Verify(v.File, trust, Options{Platform: "linux/riscv64"})
	if decide(t, statement, err) != "wrong-platform" {
		t.Error(err)
	}
	// The time of the zero value is the present, when this policy's key has expired.
	expired := all.find(t, "plain")
	policy := strings.Replace(all.Trust["policy-64-keys"]["policy.json"], `{"name":"alice",`,
		`{"name":"alice","notAfter":"2020-01-01T00:00:00Z",`, 1)
	trust, err = ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	statement, err = Verify(expired.File, trust, Options{Platform: AnyPlatform})
	if decide(t, statement, err) != "expired" {
		t.Error(err)
	}
}

func TestVersionsAreTheCallers(t *testing.T) {
	all := readVectors(t)
	v := all.find(t, "plain")
	trust := openStore(t, all.Trust[v.Trust])
	for seen, expect := range map[int64]string{0: "accepted", 3: "accepted", 4: "rolled-back"} {
		asked := ""
		options := Options{Platform: v.Platform, Now: all.Now, VersionSeen: func(project, object string) int64 {
			asked += project + " " + object
			return seen
		}}
		statement, err := Verify(v.File, trust, options)
		if found := decide(t, statement, err); found != expect || asked != "demo x.bpf.o" {
			t.Errorf("%d: %s, asked for %q", seen, found, asked)
		}
	}
}

func TestFilesAreReadOnceAndBounded(t *testing.T) {
	all := readVectors(t)
	v := all.find(t, "plain")
	directory := writeStore(t, map[string]string{"x.bpf.o": string(v.File), "large": ""})
	trust := openStore(t, all.Trust[v.Trust])
	options := Options{Platform: v.Platform, Now: all.Now}
	data, statement, err := VerifyFile(filepath.Join(directory, "x.bpf.o"), trust, options)
	if err != nil || statement == nil || string(data) != string(v.File) {
		t.Fatalf("%v, %v", statement, err)
	}
	large := filepath.Join(directory, "large")
	if err := os.Truncate(large, MaxObjectBytes+1); err != nil {
		t.Fatal(err)
	}
	_, statement, err = VerifyFile(large, trust, options)
	if decide(t, statement, err) != "too-large" {
		t.Error(err)
	}
	// Opening a FIFO for reading would wait for a writer.
	pipe := filepath.Join(directory, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe:      "object " + pipe + ": not a regular file",
		directory: "object " + directory + ": not a regular file",
		"/gone":   "object /gone: no such file or directory",
	} {
		if _, _, err := VerifyFile(path, trust, options); err == nil || err.Error() != want {
			t.Errorf("%v, not %s", err, want)
		}
	}
}

func TestTrustStoresAreFilesOrDirectories(t *testing.T) {
	all := readVectors(t)
	alice := writeStore(t, all.Trust["alice"])
	one, err := OpenTrust(filepath.Join(alice, "alice.pub"))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := OpenTrust(alice)
	if err != nil || one.String() != whole.String() {
		t.Fatalf("%v, %v", err, whole)
	}
	// A policy that cannot be read must not be skipped, and a key that is no file must not be left out.
	for _, name := range []string{"policy.json", "gone.pub"} {
		directory := writeStore(t, all.Trust["alice"])
		if err := os.Symlink("gone", filepath.Join(directory, name)); err != nil {
			t.Fatal(err)
		}
		want := "trust store " + directory + ": " + name + ": no such file or directory"
		if _, err := OpenTrust(directory); err == nil || err.Error() != want {
			t.Errorf("%v, not %s", err, want)
		}
	}
	if _, err := OpenTrust("/gone"); err == nil || err.Error() != "trust store /gone: no such file or directory" {
		t.Error(err)
	}
	crowd := writeStore(t, all.Trust["alice"])
	for i := 0; i < maxEntries; i++ {
		if err := os.WriteFile(filepath.Join(crowd, "x"+time.Duration(i).String()), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenTrust(crowd); err == nil || !strings.HasSuffix(err.Error(), "more than 1024 files in it") {
		t.Error(err)
	}
}

func TestTargetsAreAttachPoints(t *testing.T) {
	trust := &Trust{attachPoints: []string{"xdp", "fentry/do_*", "kprobe/vfs_read"}}
	for name, want := range map[string]bool{
		"xdp":                  true,
		"xdp/eth0":             false,
		"fentry/do_unlinkat":   true,
		"fentry/do_/../x":      false,
		"kprobe/vfs_read":      true,
		"kprobe/vfs_read_iter": false,
	} {
		if trust.AllowsPoint(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
	if !(&Trust{}).AllowsPoint("anything") || (&Trust{attachPoints: []string{}}).AllowsPoint("xdp") {
		t.Error("an absent rule allows everything, an empty one nothing")
	}
}

// The vectors have text of the smallest and largest escapes; these are the forms that a parser can mistake.
func TestStringsOfJSON(t *testing.T) {
	for text, want := range map[string]string{
		`"\u00e9\uD83D\ude00"`: "\u00e9\U0001f600",
		`"\"\\\/\b\f\n\r\t"`:   "\"\\/\b\f\n\r\t",
		`"\uFFFE"`:             "\uFFFE",
		`"\u0000"`:             "",
		`"\ud800"`:             "",
		`"\ud800\u0041"`:       "",
		`"\udc00\ud800"`:       "",
		`"\u00g0"`:             "",
		`"\u00 0"`:             "",
		`"\u001"`:              "",
		`"\x41"`:               "",
		"\"\t\"":               "",
		`"\`:                   "",
		`"`:                    "",
		`"\ud800\u`:            "",
	} {
		found, err := parseJSON([]byte(`{"a":` + text + `}`))
		if (err == nil) != (want != "") || (err == nil && found["a"] != want) {
			t.Errorf("%s: %q, %v", text, found["a"], err)
		}
	}
}
