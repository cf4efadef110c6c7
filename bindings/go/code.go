// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"slices"
	"strings"
)

// The rules about instructions (spec/trust-policy.md, Reading the code).
const (
	slotSize       = 8
	symbolSize     = 24
	relocationSize = 16
	maxCodeBytes   = 16 << 20 // the time for a file of nothing else stays that of an honest one
	maxSymbols     = 131072
	maxRelocations = 262144
	opcodeCall     = 0x85
	sourceHelper   = 0
	sourceLocal    = 1
)

type codeReader struct {
	*object
	trust                 *Trust
	helpers               map[int64]bool // that the statement lists
	kfuncs                map[string]bool
	programs              map[string][]string // by section without its ?, the names by which they are loaded
	symbols, names        section             // of size 0 when there are none
	codeSize, relocations uint64
}

func unreadableCode(why string) error {
	return refuse(DeniedByPolicy, "the code cannot be read: %s", why)
}

func (s section) isCode() bool {
	return s.kind == typeProgbits && s.flags&flagExecute != 0 && s.size > 0
}

func checkCode(o *object, t *Trust, st *Statement) error {
	if t.programTypes == nil && t.attachPoints == nil && t.deniedHelpers == nil && t.deniedKfuncs == nil {
		return nil
	}
	r := &codeReader{
		object: o, trust: t, helpers: map[int64]bool{}, kfuncs: map[string]bool{}, programs: map[string][]string{},
	}
	for _, program := range st.Programs {
		section := strings.TrimPrefix(program.Section, "?")
		as := section
		if program.Declared != "" {
			as = program.Declared
		}
		if !slices.Contains(r.programs[section], as) { // as thousands of sections may have this name
			r.programs[section] = append(r.programs[section], as)
		}
	}
	for _, number := range st.Helpers {
		r.helpers[number] = true
	}
	for _, name := range st.Kfuncs {
		r.kfuncs[name] = true
	}
	if err := r.findSymbols(); err != nil {
		return err
	}
	for i := 0; i < o.sections; i++ {
		if err := r.checkSection(o.section(i)); err != nil {
			return err
		}
	}
	return nil
}

func (r *codeReader) checkSection(s section) error {
	if s.isCode() {
		if err := r.checkName(s); err != nil {
			return err
		}
		return r.checkInstructions(s)
	}
	if s.kind == typeRelocations {
		return r.checkRelocations(s)
	}
	return nil
}

// isReadAgain finds sections that overlap: an attacker could make the verifier read 65,000 of the largest
// size, for hours. No sum wraps.
func (r *codeReader) isReadAgain(sum *uint64, s section) bool {
	*sum += s.size
	return *sum > uint64(len(r.data))
}

// checkName does rules 5 and 6.
func (r *codeReader) checkName(s section) error {
	name, ok := r.sectionName(s)
	if !ok {
		return unreadableCode("a section with too long a name")
	}
	if name == ".text" {
		return nil
	}
	name = strings.TrimPrefix(name, "?") // libbpf loads such a program only on request
	loaded := []string{name}
	// Only a name that libbpf does not know can be declared. Each program of the section counts.
	if programs := r.programs[name]; len(programs) > 0 && programType(name) == "unspec" {
		loaded = programs
	}
	for _, as := range loaded {
		if kind := programType(as); !r.trust.allowsType(kind) {
			return refuse(DeniedByPolicy, "section %.64q of type %s is not allowed", name, kind)
		}
		if !r.trust.AllowsPoint(as) {
			return refuse(DeniedByPolicy, "attach point %.64q is not allowed", as)
		}
	}
	return nil
}

func (r *codeReader) isCall(at uint64) bool { return r.data[at] == opcodeCall }

func (r *codeReader) checkInstructions(s section) error {
	if r.isReadAgain(&r.codeSize, s) {
		return unreadableCode("sections of code that overlap")
	}
	if r.codeSize > maxCodeBytes {
		return unreadableCode("more than 16 MiB of code")
	}
	if s.size%slotSize != 0 {
		return unreadableCode("half an instruction")
	}
	for at := s.offset; at < s.offset+s.size; at += slotSize {
		if !r.isCall(at) {
			continue
		}
		// The two register fields are bit fields, which change places with the byte order.
		source := r.data[at+1] >> 4
		if r.isBigEndian() {
			source = r.data[at+1] & 0xf
		}
		if source > sourceLocal {
			return unreadableCode("a kernel function called by its number")
		}
		if source == sourceHelper {
			if err := r.checkHelper(int64(r.u32(at + 4))); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkHelper does rule 7.
func (r *codeReader) checkHelper(number int64) error {
	if r.trust.deniedHelpers == nil {
		return nil
	}
	if !r.helpers[number] {
		return refuse(DeniedByPolicy, "the code calls helper %d, which its statement does not list", number)
	}
	if r.trust.deniedHelpers[number] {
		return refuse(DeniedByPolicy, "the code calls helper %d", number)
	}
	return nil
}

// checkKfunc does rule 8.
func (r *codeReader) checkKfunc(name string) error {
	denied := r.trust.deniedKfuncs
	if denied == nil {
		return nil
	}
	if !r.kfuncs[name] {
		return refuse(DeniedByPolicy, "the code calls kernel function %.64q, which its statement does not list", name)
	}
	if denied[name] || denied[withoutFlavour(name)] {
		return refuse(DeniedByPolicy, "the code calls kernel function %.64q", name)
	}
	return nil
}

// withoutFlavour cuts name___flavour at the last such place, because libbpf looks for such a name under name.
func withoutFlavour(name string) string {
	for i := len(name) - 1; i >= 1; i-- {
		rest := name[i:]
		if name[i-1] != '_' && strings.HasPrefix(rest, "___") && len(rest) > 3 && rest[3] != '_' {
			return name[:i]
		}
	}
	return name
}

func (s section) isTable(size uint64) bool { return s.entrySize == size && s.size%size == 0 }

func (r *codeReader) findSymbols() error {
	found := false
	for i := 0; i < r.sections; i++ {
		s := r.section(i)
		if s.kind != typeSymbolTable {
			continue
		}
		if found || uint64(s.link) >= uint64(r.sections) || !s.isTable(symbolSize) {
			return unreadableCode("more than one symbol table, or a damaged one")
		}
		if s.size > maxSymbols*symbolSize {
			return unreadableCode("more than 131072 symbols")
		}
		found = true
		r.symbols, r.names = s, r.section(int(s.link))
		if r.names.kind != typeStringTable || r.names.size == 0 ||
			r.data[r.names.offset+r.names.size-1] != 0 {
			return unreadableCode("a symbol table without names")
		}
	}
	return nil
}

func (r *codeReader) checkRelocations(s section) error {
	if uint64(s.info) >= uint64(r.sections) {
		return nil
	}
	code := r.section(int(s.info))
	if !code.isCode() {
		return nil
	}
	if r.isReadAgain(&r.relocations, s) {
		return unreadableCode("tables of relocations that overlap")
	}
	if r.relocations > maxRelocations*relocationSize {
		return unreadableCode("more than 262144 relocations")
	}
	if !s.isTable(relocationSize) {
		return unreadableCode("a damaged table of relocations")
	}
	for at := s.offset; at < s.offset+s.size; at += relocationSize {
		if err := r.checkRelocation(code, at); err != nil {
			return err
		}
	}
	return nil
}

// checkRelocation finds calls of undefined symbols, which are calls of kernel functions.
func (r *codeReader) checkRelocation(code section, at uint64) error {
	offset, number := r.u64(at), r.u64(at+8)>>32
	if offset%slotSize != 0 || offset >= code.size || number >= r.symbols.size/symbolSize {
		return unreadableCode("a relocation of what is not there")
	}
	symbol := r.symbols.offset + number*symbolSize
	if !r.isCall(code.offset+offset) || r.u16(symbol+6) != 0 {
		return nil
	}
	name := uint64(r.u32(symbol))
	if name >= r.names.size {
		return unreadableCode("a symbol with a name outside the table")
	}
	text, ok := r.text(r.names.offset + name)
	if !ok {
		return unreadableCode("a symbol with too long a name")
	}
	return r.checkKfunc(text)
}
