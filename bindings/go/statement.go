// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"fmt"
	"strings"
	"time"
)

const (
	statementType   = "https://in-toto.io/Statement/v1"
	predicateType   = "urn:buildtool:ebpf-object:v1"
	maxReleaseBytes = 128
)

// Statement is what the signers of an accepted object stated (spec/sig-section.md, section 6).
type Statement struct {
	Name      string   // of the object, for policies and messages
	Digest    [32]byte // SHA-256 of the file, with the contents of .sig as zero bytes
	Platform  string   // for example "linux/arm64"
	Project   string
	Version   int64 // against rollback
	Release   string
	Created   time.Time
	NotAfter  *time.Time // nil: the statement has no end
	Programs  []Program
	Maps      []Map
	Helpers   []int64  // numbers of the helpers that the programs call, ascending
	Kfuncs    []string // kernel functions that the programs call, ascending
	License   string
	Toolchain *Toolchain // nil if absent
	Source    *Source    // nil if absent
	Settable  *Settable  // nil if absent: nothing may be set

	// KeyIDs are the keys that counted, ascending. Each is the SHA-256 of a key's DER SubjectPublicKeyInfo.
	KeyIDs [][32]byte

	digest string // that the signers stated
}

// Program is a program of an object.
type Program struct {
	Name, Section, Type string
	Attach              []string // default targets
	Declared            string   // the section name by which the program is loaded, "" for its own
}

// Map is a map of an object.
type Map struct {
	Name, Type                     string
	KeySize, ValueSize, MaxEntries int64
	Section, Struct                string // of a struct_ops map, "" for others
	Pinned                         bool   // by its name
}

// Toolchain is the compiler of an object, and its flags.
type Toolchain struct {
	Compiler string
	Flags    []string
}

// Source is the source file of an object.
type Source struct{ Path, SHA256 string }

var statementMembers = []member{
	{name: "_type", is: isOne(statementType)},
	{name: "subject", is: isArray},
	{name: "predicateType", is: isOne(predicateType)},
	{name: "predicate", is: isObject},
}

var subjectMembers = []member{
	{name: "name", is: isObjectName},
	{name: "digest", is: isObject},
}

var digestMembers = []member{
	{name: "sha256", is: isSHA256},
}

var predicateMembers = []member{
	{name: "platform", is: isString},
	{name: "project", is: isProject},
	{name: "version", is: isInteger},
	{name: "release", is: isRelease},
	{name: "created", is: isTime},
	{name: "notAfter", is: isTime, optional: true},
	{name: "programs", is: isArray},
	{name: "maps", is: isArray},
	{name: "helpers", is: isIntegerSet},
	{name: "kfuncs", is: isStringSet},
	{name: "license", is: isString},
	{name: "toolchain", is: isObject, optional: true},
	{name: "source", is: isObject, optional: true},
	{name: "settable", is: isObject, optional: true},
}

var programMembers = []member{
	{name: "name", is: isString},
	{name: "section", is: isString},
	{name: "type", is: isString},
	{name: "attach", is: isStrings, optional: true},
	{name: "declared", is: isString, optional: true},
}

var mapMembers = []member{
	{name: "name", is: isString},
	{name: "type", is: isString},
	{name: "keySize", is: isInteger},
	{name: "valueSize", is: isInteger},
	{name: "maxEntries", is: isInteger},
	{name: "section", is: isString, optional: true},
	{name: "struct", is: isString, optional: true},
	{name: "pinned", is: isBoolean, optional: true},
}

var toolchainMembers = []member{
	{name: "compiler", is: isString},
	{name: "flags", is: isStrings},
}

var sourceMembers = []member{
	{name: "path", is: isString},
	{name: "sha256", is: isSHA256},
}

func isRelease(value any) bool {
	text, ok := value.(string)
	return ok && len(text) <= maxReleaseBytes
}

// parseStatement reads the bytes that were signed.
func parseStatement(data []byte) (*Statement, error) {
	value, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	root, err := checkMembers(value, "statement", statementMembers)
	if err != nil {
		return nil, err
	}
	subjects := root["subject"].([]any)
	if len(subjects) != 1 {
		return nil, fmt.Errorf("statement: not exactly one subject")
	}
	subject, err := checkMembers(subjects[0], "subject", subjectMembers)
	if err != nil {
		return nil, err
	}
	digest, err := checkMembers(subject["digest"], "digest", digestMembers)
	if err != nil {
		return nil, err
	}
	st := &Statement{Name: textOf(subject, "name"), digest: textOf(digest, "sha256")}
	return st, st.readPredicate(root["predicate"])
}

func (st *Statement) readPredicate(value any) error {
	body, err := checkMembers(value, "predicate", predicateMembers)
	if err != nil {
		return err
	}
	st.Platform = textOf(body, "platform")
	st.Project = textOf(body, "project")
	st.Version = integerOf(body, "version")
	st.Release = textOf(body, "release")
	st.License = textOf(body, "license")
	st.Helpers = integers(body["helpers"])
	st.Kfuncs = texts(body["kfuncs"])
	created, _ := parseTime(body["created"])
	st.Created = time.Unix(created, 0).UTC()
	if end, ok := parseTime(body["notAfter"]); ok {
		until := time.Unix(end, 0).UTC()
		st.NotAfter = &until
	}
	for _, item := range body["programs"].([]any) {
		program, err := checkMembers(item, "program", programMembers)
		if err != nil {
			return err
		}
		if err := checkDeclared(program); err != nil {
			return err
		}
		st.Programs = append(st.Programs, Program{
			Name:    textOf(program, "name"),
			Section: textOf(program, "section"),
			Type:    textOf(program, "type"),
			Attach:  texts(program["attach"]),

			Declared: textOf(program, "declared"),
		})
	}
	for _, item := range body["maps"].([]any) {
		entry, err := checkMembers(item, "map", mapMembers)
		if err != nil {
			return err
		}
		pinned, _ := entry["pinned"].(bool)
		st.Maps = append(st.Maps, Map{
			Name:       textOf(entry, "name"),
			Type:       textOf(entry, "type"),
			KeySize:    integerOf(entry, "keySize"),
			ValueSize:  integerOf(entry, "valueSize"),
			MaxEntries: integerOf(entry, "maxEntries"),
			Section:    textOf(entry, "section"),
			Struct:     textOf(entry, "struct"),
			Pinned:     pinned,
		})
	}
	if err := st.readSettable(body); err != nil {
		return err
	}
	return st.readOrigin(body)
}

// checkDeclared refuses a declaration that changes what libbpf knows of a section, or that differs from the type.
func checkDeclared(program members) error {
	declared, ok := program["declared"].(string)
	if !ok {
		return nil
	}
	kind, known := declaredType(declared)
	section := strings.TrimPrefix(textOf(program, "section"), "?")
	if !known || kind != textOf(program, "type") || programType(section) != "unspec" {
		return fmt.Errorf("program: declared is wrong")
	}
	return nil
}

func (st *Statement) readOrigin(body members) error {
	if value, ok := body["toolchain"]; ok {
		tools, err := checkMembers(value, "toolchain", toolchainMembers)
		if err != nil {
			return err
		}
		st.Toolchain = &Toolchain{Compiler: textOf(tools, "compiler"), Flags: texts(tools["flags"])}
	}
	if value, ok := body["source"]; ok {
		source, err := checkMembers(value, "source", sourceMembers)
		if err != nil {
			return err
		}
		st.Source = &Source{Path: textOf(source, "path"), SHA256: textOf(source, "sha256")}
	}
	return nil
}
