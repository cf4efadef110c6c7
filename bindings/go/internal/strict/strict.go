// SPDX-License-Identifier: Apache-2.0

// Package strict verifies Ed25519 signatures by the rules of spec/sig-section.md, section 5.
package strict

import (
	"bytes"
	"crypto/ed25519"
	"crypto/subtle"
	"math/big"
)

// Sizes in bytes.
const (
	KeySize       = ed25519.PublicKeySize
	SignatureSize = ed25519.SignatureSize
)

var (
	one   = big.NewInt(1)
	two   = big.NewInt(2)
	field = new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	order = new(big.Int).Add(new(big.Int).Lsh(one, 252), decimal("27742317777372353535851937790883648493"))
	d     = modulo(new(big.Int).Mul(big.NewInt(-121665), invert(big.NewInt(121666))))
	// sqrtM1 is a square root of -1.
	sqrtM1 = new(big.Int).Exp(two, new(big.Int).Rsh(new(big.Int).Sub(field, one), 2), field)

	identityEncoding = append([]byte{1}, make([]byte, KeySize-1)...)
)

func decimal(text string) *big.Int {
	value, _ := new(big.Int).SetString(text, 10)
	return value
}

func modulo(value *big.Int) *big.Int { return value.Mod(value, field) }

func invert(value *big.Int) *big.Int { return new(big.Int).ModInverse(value, field) }

func product(a, b *big.Int) *big.Int { return modulo(new(big.Int).Mul(a, b)) }

func sum(a, b *big.Int) *big.Int { return modulo(new(big.Int).Add(a, b)) }

func difference(a, b *big.Int) *big.Int { return modulo(new(big.Int).Sub(a, b)) }

// point has extended coordinates: x = X/Z, y = Y/Z, T = XY/Z (RFC 8032, section 5.1.4).
type point struct{ x, y, z, t *big.Int }

// decode returns the point of a canonical encoding (RFC 8032, section 5.1.3), or false.
func decode(encoding []byte) (point, bool) {
	reversed := make([]byte, KeySize)
	for i, octet := range encoding {
		reversed[KeySize-1-i] = octet
	}
	sign := uint(reversed[0] >> 7)
	reversed[0] &= 0x7f
	y := new(big.Int).SetBytes(reversed)
	if y.Cmp(field) >= 0 {
		return point{}, false
	}
	square := product(y, y)
	u, v := difference(square, one), sum(product(d, square), one)
	// x = u v^3 (u v^7)^((p-5)/8)
	v3 := product(product(v, v), v)
	exponent := new(big.Int).Rsh(new(big.Int).Sub(field, big.NewInt(5)), 3)
	root := new(big.Int).Exp(product(u, product(product(v3, v3), v)), exponent, field)
	x := product(product(u, v3), root)
	found := product(v, product(x, x))
	if found.Cmp(difference(big.NewInt(0), u)) == 0 && found.Cmp(u) != 0 {
		x = product(x, sqrtM1)
	} else if found.Cmp(u) != 0 {
		return point{}, false
	}
	if x.Sign() == 0 && sign == 1 {
		return point{}, false
	}
	if x.Bit(0) != sign {
		x = difference(field, x)
	}
	return point{x, y, one, product(x, y)}, true
}

// add returns the sum of two points. The formula is complete, so it also doubles a point.
func add(p, q point) point {
	a := product(difference(p.y, p.x), difference(q.y, q.x))
	b := product(sum(p.y, p.x), sum(q.y, q.x))
	c := product(product(two, product(p.t, q.t)), d)
	e := product(two, product(p.z, q.z))
	f, g, h, i := difference(b, a), difference(e, c), sum(e, c), sum(b, a)
	return point{product(f, g), product(h, i), product(g, h), product(f, i)}
}

func (p point) isIdentity() bool { return p.x.Sign() == 0 && p.y.Cmp(p.z) == 0 }

// IsKey returns whether a public key of 32 bytes is the canonical encoding of a point of the prime-order
// subgroup other than the identity. The key is public, so the function needs no constant time.
func IsKey(key []byte) bool {
	if len(key) != KeySize {
		return false
	}
	p, ok := decode(key)
	if !ok || p.isIdentity() {
		return false
	}
	multiple := p
	for bit := order.BitLen() - 2; bit >= 0; bit-- {
		multiple = add(multiple, multiple)
		if order.Bit(bit) == 1 {
			multiple = add(multiple, p)
		}
	}
	return multiple.isIdentity()
}

// Verify returns whether a signature of 64 bytes over the message is valid. IsKey accepted the key before.
//
// crypto/ed25519 checks S < L and compares the bytes of R with the encoding of [S]B - [k]A. With A of prime
// order, that point has prime order or is the identity, and the encoding is canonical. The identity remains
// to be refused here. The vectors small-order-r, mixed-order-r and non-canonical-r prove all of these.
func Verify(key, message, signature []byte) bool {
	if len(key) != KeySize || len(signature) != SignatureSize {
		return false
	}
	if subtle.ConstantTimeCompare(signature[:KeySize], identityEncoding) == 1 || bytes.Equal(key, identityEncoding) {
		return false
	}
	return ed25519.Verify(key, message, signature)
}
