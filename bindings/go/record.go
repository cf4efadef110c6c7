// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

const (
	recordMagic       = "\x7fBPFSIG\x00"
	recordHeaderSize  = 32
	recordEntrySize   = 96
	recordUnit        = 1024
	maxRecordBytes    = 524288
	maxStatementBytes = 262144
	maxSignatures     = 16
	reservedEntries   = 4 // a record always has room for this many signatures
	keyIDSize         = 32
)

// entry is one signature of a record.
type entry struct {
	keyID     [keyIDSize]byte
	signature []byte
}

// record is the signature record of spec/sig-section.md, section 2. It borrows the section's bytes.
type record struct {
	statement []byte
	entries   []entry
}

func isZero(data []byte) bool {
	for _, octet := range data {
		if octet != 0 {
			return false
		}
	}
	return true
}

func parseRecord(data []byte) (*record, error) {
	size := len(data)
	if size < recordHeaderSize || string(data[:len(recordMagic)]) != recordMagic {
		return nil, refuse(Malformed, "signature record: wrong magic")
	}
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at:]) }
	if word(8) != 1 {
		return nil, refuse(Malformed, "signature record: unknown version %d", word(8))
	}
	if uint64(word(12)) != uint64(size) || size%recordUnit != 0 || size > maxRecordBytes {
		return nil, refuse(Malformed, "signature record: wrong section size")
	}
	if word(16) < 1 || word(16) > maxStatementBytes {
		return nil, refuse(Malformed, "signature record: wrong statement size")
	}
	if word(20) < 1 || word(20) > maxSignatures {
		return nil, refuse(Malformed, "signature record: wrong signature count")
	}
	if !isZero(data[24:recordHeaderSize]) {
		return nil, refuse(Malformed, "signature record: reserved bytes not zero")
	}
	// At most 32 + 262144 + 16 * 96: no sum wraps.
	first, count := recordHeaderSize+int(word(16)), int(word(20))
	used := first + count*recordEntrySize
	if size < used || size < first+reservedEntries*recordEntrySize {
		return nil, refuse(Malformed, "signature record: section too small")
	}
	if !isZero(data[used:]) {
		return nil, refuse(Malformed, "signature record: padding not zero")
	}
	r := &record{statement: data[recordHeaderSize:first], entries: make([]entry, count)}
	for i := range r.entries {
		at := first + i*recordEntrySize
		copy(r.entries[i].keyID[:], data[at:])
		r.entries[i].signature = data[at+keyIDSize : at+recordEntrySize]
		if i > 0 && bytes.Compare(r.entries[i-1].keyID[:], r.entries[i].keyID[:]) >= 0 {
			return nil, refuse(Malformed, "signature record: key ids not ascending")
		}
	}
	return r, nil
}

// signingInput returns the bytes that are signed (section 4).
func (r *record) signingInput() []byte {
	head := fmt.Sprintf("DSSEv1 28 application/vnd.in-toto+json %d ", len(r.statement))
	return append([]byte(head), r.statement...)
}
