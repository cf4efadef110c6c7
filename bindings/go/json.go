// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The rules of spec/sig-section.md, section 6. encoding/json accepts duplicate members, invalid UTF-8, lone
// surrogates and member names in other letter case, so statements and policies have a parser of their own.
const (
	maxDepth   = 8
	maxInteger = 1<<53 - 1
)

var errJSON = errors.New("not the JSON of the specification")

// members is a JSON object. The other values are []any, string, int64, bool and nil.
type members = map[string]any

type jsonParser struct {
	text  string
	at    int
	depth int
}

// parseJSON returns the object in the data, UTF-8 text that holds one JSON object and nothing else. Memory
// and time are linear in the size of the data, and the depth of the recursion is bounded.
func parseJSON(data []byte) (members, error) {
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: not UTF-8", errJSON)
	}
	p := &jsonParser{text: string(data)}
	p.skipSpace()
	if p.peek() != '{' {
		return nil, fmt.Errorf("%w: not an object", errJSON)
	}
	value, err := p.value()
	if err != nil {
		return nil, err
	}
	p.skipSpace()
	if p.at != len(p.text) {
		return nil, p.fault("text after the object")
	}
	return value.(members), nil
}

func (p *jsonParser) fault(problem string) error {
	line := 1 + strings.Count(p.text[:min(p.at, len(p.text))], "\n")
	return fmt.Errorf("%w: line %d: %s", errJSON, line, problem)
}

// peek returns the next byte, or 0 at the end; a zero byte in the text is no token.
func (p *jsonParser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *jsonParser) skipSpace() {
	for p.at < len(p.text) && strings.IndexByte(" \t\n\r", p.text[p.at]) >= 0 {
		p.at++
	}
}

// take consumes a byte, with the white space before it, and returns whether it was there.
func (p *jsonParser) take(token byte) bool {
	p.skipSpace()
	if p.peek() != token {
		return false
	}
	p.at++
	return true
}

func (p *jsonParser) value() (any, error) {
	p.skipSpace()
	switch c := p.peek(); {
	case c == '{':
		return p.nested(p.object)
	case c == '[':
		return p.nested(p.array)
	case c == '"':
		return p.string()
	case c == '-' || isDigit(c):
		return p.integer()
	}
	for word, value := range map[string]any{"true": true, "false": false, "null": nil} {
		if strings.HasPrefix(p.text[p.at:], word) {
			p.at += len(word)
			return value, nil
		}
	}
	return nil, p.fault("not a value")
}

func (p *jsonParser) nested(parse func() (any, error)) (any, error) {
	p.depth++
	if p.depth > maxDepth {
		return nil, p.fault(fmt.Sprintf("nested more than %d deep", maxDepth))
	}
	p.at++
	value, err := parse()
	p.depth--
	return value, err
}

func (p *jsonParser) object() (any, error) {
	found := members{}
	if p.take('}') {
		return found, nil
	}
	for {
		p.skipSpace()
		if p.peek() != '"' {
			return nil, p.fault("not a member name")
		}
		name, err := p.string()
		if err != nil {
			return nil, err
		}
		if _, ok := found[name]; ok {
			return nil, p.fault("duplicate member")
		}
		if !p.take(':') {
			return nil, p.fault("no colon after a member name")
		}
		if found[name], err = p.value(); err != nil {
			return nil, err
		}
		if p.take('}') {
			return found, nil
		}
		if !p.take(',') {
			return nil, p.fault("no comma between members")
		}
	}
}

func (p *jsonParser) array() (any, error) {
	found := []any{}
	if p.take(']') {
		return found, nil
	}
	for {
		value, err := p.value()
		if err != nil {
			return nil, err
		}
		found = append(found, value)
		if p.take(']') {
			return found, nil
		}
		if !p.take(',') {
			return nil, p.fault("no comma between items")
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// integer accepts -0, which is 0, and 0 to 2^53 - 1 without fraction and exponent.
func (p *jsonParser) integer() (any, error) {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	digits := p.at
	for isDigit(p.peek()) {
		p.at++
	}
	text := p.text[digits:p.at]
	next := p.peek()
	if text == "" || (text[0] == '0' && len(text) > 1) || next == '.' || next == 'e' || next == 'E' {
		return nil, p.fault("not an integer")
	}
	value, err := strconv.ParseInt(p.text[start:p.at], 10, 64)
	if err != nil || value < 0 || value > maxInteger {
		return nil, p.fault("not an integer from 0 to 2^53 - 1")
	}
	return value, nil
}

// string reads a string without U+0000 and lone surrogates.
func (p *jsonParser) string() (string, error) {
	p.at++
	start := p.at
	for p.at < len(p.text) && p.text[p.at] != '"' && p.text[p.at] != '\\' && p.text[p.at] >= ' ' {
		p.at++
	}
	if p.peek() == '"' {
		p.at++
		return p.text[start : p.at-1], nil
	}
	out := []byte(p.text[start:p.at])
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.at++
		switch {
		case c == '"':
			return string(out), nil
		case c < ' ':
			return "", p.fault("a control character in a string")
		case c != '\\':
			out = append(out, c)
		default:
			character, ok := p.escape()
			if !ok {
				return "", p.fault("an escape that is not allowed")
			}
			out = utf8.AppendRune(out, character)
		}
	}
	return "", p.fault("a string without an end")
}

var escapes = map[byte]rune{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

func (p *jsonParser) escape() (rune, bool) {
	c := p.peek()
	p.at++
	if c != 'u' {
		character, ok := escapes[c]
		return character, ok
	}
	first, ok := p.unit()
	if !ok || first == 0 {
		return 0, false
	}
	if !utf16.IsSurrogate(first) {
		return first, true
	}
	if !strings.HasPrefix(p.text[min(p.at, len(p.text)):], `\u`) {
		return 0, false
	}
	p.at += 2
	second, ok := p.unit()
	character := utf16.DecodeRune(first, second)
	return character, ok && character != utf8.RuneError
}

// unit reads four hexadecimal digits.
func (p *jsonParser) unit() (rune, bool) {
	if p.at+4 > len(p.text) {
		return 0, false
	}
	var value rune
	for _, c := range []byte(p.text[p.at : p.at+4]) {
		digit := strings.IndexByte("0123456789abcdef", c|0x20)
		// The bit makes letters small, and bytes below the digits into digits.
		if digit < 0 || (digit < 10 && !isDigit(c)) {
			return 0, false
		}
		value = value<<4 | rune(digit)
	}
	p.at += 4
	return value, true
}
