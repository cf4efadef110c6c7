// SPDX-License-Identifier: Apache-2.0

package sigverify

// The reader of BTF (spec/trust-policy.md, Reading the maps).
const (
	btfHeaderSize = 24
	btfHeadSize   = 12 // of a type
	btfMagic      = 0xeb9f
	btfInfoMask   = 0x9f00ffff // libbpf 1.8 gives others of the bits a meaning
	btfKinds      = 19
	btfChainMax   = 32

	// The kernel's own limits, BTF_MAX_TYPE and BTF_MAX_NAME_OFFSET: it loads no BTF with more.
	btfMaxTypes     = 0xfffff
	btfMaxNameBytes = 16 << 20

	kindPointer = 2
	kindArray   = 3
	kindStruct  = 4
	kindVar     = 14
	kindGroup   = 15
)

// btfSizes has the bytes that follow the three integers of a type, and the bytes for each that it counts.
var btfSizes = [btfKinds + 1]struct{ fixed, each uint64 }{
	1:  {fixed: 4},  // integer
	3:  {fixed: 12}, // array
	4:  {each: 12},  // struct
	5:  {each: 12},  // union
	6:  {each: 8},   // enumeration
	13: {each: 8},   // prototype of a function
	14: {fixed: 4},  // variable
	15: {each: 12},  // group of variables
	17: {fixed: 4},  // tag of a declaration
	19: {each: 12},  // enumeration of 64 bits
}

// btf has the types of an object; it borrows the object's bytes.
type btf struct {
	*object
	types, typesEnd, strings, stringsEnd uint64   // offsets in the file
	offsets                              []uint32 // of each type in the types, by its number less 1
}

type btfType struct {
	at          uint64 // in the file: what follows the three integers
	name, value uint32
	kind        int
	count       int
}

// parseBTF reads the contents of a section. Memory grows with the section, never with a number in it.
func parseBTF(o *object, s section) (*btf, bool) {
	t := &btf{object: o}
	at, end := s.offset, s.offset+s.size
	if s.size < btfHeaderSize || o.u16(at) != btfMagic || o.data[at+2] != 1 {
		return nil, false
	}
	// No sum of an offset in the file and three 32-bit numbers wraps.
	length := uint64(o.u32(at + 4))
	t.types = at + length + uint64(o.u32(at+8))
	t.typesEnd = t.types + uint64(o.u32(at+12))
	t.strings = at + length + uint64(o.u32(at+16))
	t.stringsEnd = t.strings + uint64(o.u32(at+20))
	if length < btfHeaderSize || t.typesEnd > end || t.stringsEnd > end || t.strings == t.stringsEnd ||
		t.stringsEnd-t.strings > btfMaxNameBytes || o.data[t.stringsEnd-1] != 0 {
		return nil, false
	}
	for at := t.types; at < t.typesEnd; {
		_, next, ok := t.read(at)
		if !ok || len(t.offsets) == btfMaxTypes {
			return nil, false
		}
		t.offsets = append(t.offsets, uint32(at-t.types))
		at = next
	}
	return t, true
}

// read returns the type at an offset, and where the next one begins.
func (t *btf) read(at uint64) (btfType, uint64, bool) {
	if t.typesEnd-at < btfHeadSize {
		return btfType{}, 0, false
	}
	info := t.u32(at + 4)
	found := btfType{
		at:    at + btfHeadSize,
		name:  t.u32(at),
		value: t.u32(at + 8),
		kind:  int(info >> 24 & 0x1f),
		count: int(info & 0xffff),
	}
	if info&^btfInfoMask != 0 || found.kind < 1 || found.kind > btfKinds {
		return btfType{}, 0, false
	}
	size := btfSizes[found.kind]
	next := found.at + size.fixed + size.each*uint64(found.count)
	return found, next, next <= t.typesEnd
}

// find returns the type of a number, from 1.
func (t *btf) find(number uint32) (btfType, bool) {
	if number == 0 || uint64(number) > uint64(len(t.offsets)) {
		return btfType{}, false
	}
	found, _, ok := t.read(t.types + uint64(t.offsets[number-1]))
	return found, ok
}

// resolve returns the type behind type definitions, qualifiers and tags of types.
func (t *btf) resolve(number uint32) (btfType, bool) {
	for i := 0; i < btfChainMax; i++ {
		found, ok := t.find(number)
		if !ok {
			return btfType{}, false
		}
		if (found.kind < 8 || found.kind > 11) && found.kind != 18 {
			return found, true
		}
		number = found.value
	}
	return btfType{}, false
}

// word returns an integer of those that follow a type; the caller stays within the type's count.
func (t *btf) word(of btfType, index int) uint32 { return t.u32(of.at + 4*uint64(index)) }

// nameAt returns a name of at most maxTextBytes. The names end in a zero byte, so every one of them ends.
func (t *btf) nameAt(offset uint32) (string, bool) {
	if uint64(offset) >= t.stringsEnd-t.strings {
		return "", false
	}
	return t.text(t.strings + uint64(offset))
}
