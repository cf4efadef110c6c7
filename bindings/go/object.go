// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

const (
	elfHeaderSize  = 64
	elfSectionSize = 64
	elfMaxSections = 65279
	machineBPF     = 247
	maxTextBytes   = 512 // of a name; the kernel's own are no longer

	typeNull        = 0
	typeProgbits    = 1
	typeSymbolTable = 2
	typeStringTable = 3
	typeNobits      = 8
	typeRelocations = 9
	flagExecute     = 4
)

// object is an ELF object of the profile in spec/sig-section.md, section 1. It borrows the bytes.
type object struct {
	data     []byte
	order    binary.ByteOrder
	table    uint64 // offset of the section header table
	sections int
	names    uint64 // offset of the section names, which end in a zero byte
	sigCount int
	sigIndex int // of the first section named .sig
}

type section struct {
	name, kind, link, info               uint32
	flags, addr, offset, size, entrySize uint64
}

func (o *object) isBigEndian() bool { return o.order == binary.BigEndian }

func (o *object) u16(at uint64) uint16 { return o.order.Uint16(o.data[at:]) }
func (o *object) u32(at uint64) uint32 { return o.order.Uint32(o.data[at:]) }
func (o *object) u64(at uint64) uint64 { return o.order.Uint64(o.data[at:]) }

// section returns the entry of the table; the caller checks the index.
func (o *object) section(index int) section {
	at := o.table + uint64(index)*elfSectionSize
	return section{
		name:      o.u32(at),
		kind:      o.u32(at + 4),
		flags:     o.u64(at + 8),
		addr:      o.u64(at + 16),
		offset:    o.u64(at + 24),
		size:      o.u64(at + 32),
		link:      o.u32(at + 40),
		info:      o.u32(at + 44),
		entrySize: o.u64(at + 56),
	}
}

// text returns the bytes at an offset up to the next zero byte, and whether they are at most maxTextBytes.
// Longer text is cut, so that the time is bounded. A zero byte follows every offset that callers give.
func (o *object) text(at uint64) (string, bool) {
	part := o.data[at:]
	if len(part) > maxTextBytes+1 {
		part = part[:maxTextBytes+1]
	}
	if end := bytes.IndexByte(part, 0); end >= 0 {
		return string(part[:end]), true
	}
	return string(part), false
}

func (o *object) sectionName(s section) (string, bool) { return o.text(o.names + uint64(s.name)) }

// occupies returns whether the section has contents in the file.
func (s section) occupies() bool { return s.kind != typeNull && s.kind != typeNobits }

// inside compares without a sum, which could wrap.
func inside(offset, size, total uint64) bool { return offset <= total && size <= total-offset }

// overlap compares two ranges inside the file, so no sum wraps.
func overlap(a, aSize, b, bSize uint64) bool {
	return aSize > 0 && bSize > 0 && a < b+bSize && b < a+aSize
}

// parseObject reads an object by section 1, without the rules for .sig.
func parseObject(data []byte) (*object, error) {
	o := &object{data: data}
	if err := o.parseHeader(); err != nil {
		return nil, err
	}
	index := int(o.u16(62))
	if index < 1 || index >= o.sections {
		return nil, refuse(Malformed, "no section name table")
	}
	names, total := o.section(index), uint64(len(data))
	if names.kind != typeStringTable || names.size == 0 || !inside(names.offset, names.size, total) ||
		data[names.offset+names.size-1] != 0 {
		return nil, refuse(Malformed, "bad section name table")
	}
	o.names = names.offset
	if o.section(0).kind != typeNull {
		return nil, refuse(Malformed, "section 0 is not empty")
	}
	end := o.table + uint64(o.sections)*elfSectionSize
	for i := 0; i < o.sections; i++ {
		s := o.section(i)
		if uint64(s.name) >= names.size {
			return nil, refuse(Malformed, "section %d: name outside the table", i)
		}
		if s.occupies() {
			if !inside(s.offset, s.size, total) {
				return nil, refuse(Malformed, "section %d: outside the file", i)
			}
			end = max(end, s.offset+s.size)
		}
		// The table ends in a zero byte, so every name in it has an end.
		if name, _ := o.sectionName(s); name == ".sig" {
			if o.sigCount == 0 {
				o.sigIndex = i
			}
			o.sigCount++
		}
	}
	if end != total {
		return nil, refuse(Malformed, "data after the end that the headers describe")
	}
	return o, nil
}

func (o *object) parseHeader() error {
	data := o.data
	if len(data) < elfHeaderSize || string(data[:4]) != "\x7fELF" {
		return refuse(Malformed, "not an ELF file")
	}
	if data[4] != 2 || (data[5] != 1 && data[5] != 2) || data[6] != 1 {
		return refuse(Malformed, "not a 64-bit ELF file of version 1")
	}
	o.order = binary.LittleEndian
	if data[5] == 2 {
		o.order = binary.BigEndian
	}
	if o.u16(16) != 1 || o.u16(18) != machineBPF || o.u32(20) != 1 {
		return refuse(Malformed, "not a relocatable eBPF object")
	}
	if o.u16(52) != elfHeaderSize || o.u16(56) != 0 || o.u16(58) != elfSectionSize {
		return refuse(Malformed, "wrong ELF header or entry sizes")
	}
	o.table, o.sections = o.u64(40), int(o.u16(60))
	if o.sections < 2 || o.sections > elfMaxSections {
		return refuse(Malformed, "%d sections", o.sections)
	}
	if o.table < elfHeaderSize || !inside(o.table, uint64(o.sections)*elfSectionSize, uint64(len(data))) {
		return refuse(Malformed, "section header table outside the file")
	}
	return nil
}

// checkSig checks the rules for .sig of an object that has one, and returns the section.
func (o *object) checkSig() (section, error) {
	sig := o.section(o.sigIndex)
	if o.sigCount != 1 {
		return sig, refuse(Malformed, "%d sections named .sig", o.sigCount)
	}
	if sig.kind != typeProgbits || sig.flags != 0 || sig.addr != 0 || sig.link != 0 || sig.info != 0 ||
		sig.entrySize != 0 {
		return sig, refuse(Malformed, "section .sig: wrong type or attributes")
	}
	if overlap(sig.offset, sig.size, 0, elfHeaderSize) ||
		overlap(sig.offset, sig.size, o.table, uint64(o.sections)*elfSectionSize) {
		return sig, refuse(Malformed, "section .sig overlaps the headers")
	}
	for i := 1; i < o.sections; i++ {
		s := o.section(i)
		if i != o.sigIndex && s.occupies() && overlap(sig.offset, sig.size, s.offset, s.size) {
			return sig, refuse(Malformed, "section .sig overlaps section %d", i)
		}
	}
	return sig, nil
}

// digest returns the SHA-256 of the file, with the contents of .sig as zero bytes (section 3).
func (o *object) digest(sig section) (digest [sha256.Size]byte) {
	var zeros [4096]byte
	hash := sha256.New()
	hash.Write(o.data[:sig.offset])
	for left := sig.size; left > 0; {
		n := min(left, uint64(len(zeros)))
		hash.Write(zeros[:n])
		left -= n
	}
	hash.Write(o.data[sig.offset+sig.size:])
	hash.Sum(digest[:0])
	return digest
}
