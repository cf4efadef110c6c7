// SPDX-License-Identifier: Apache-2.0

// Command check answers many questions of a test to the verifier, in one process. loader/fuzz/check.c of the
// repository lists the questions and the answers.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"buildtool/sigverify"
	"buildtool/sigverify/internal/strict"
)

const maxQuestionBytes = 128 << 20

var errQuestion = errors.New("check: not a question")

type session struct {
	trust   *sigverify.Trust
	options sigverify.Options
}

func main() {
	s := &session{options: sigverify.Options{Platform: sigverify.AnyPlatform}}
	in, out := bufio.NewReaderSize(os.Stdin, 1<<16), bufio.NewWriter(os.Stdout)
	for {
		err := s.answerNext(in, out)
		// The other side waits for the answer, unless it has sent more questions.
		if err == nil && in.Buffered() == 0 {
			err = out.Flush()
		}
		if errors.Is(err, io.EOF) {
			err = out.Flush()
			if err == nil {
				return
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func (s *session) answerNext(in io.Reader, out io.Writer) error {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:1]); err != nil {
		return err
	}
	if _, err := io.ReadFull(in, head[1:]); err != nil {
		return errQuestion
	}
	size := binary.LittleEndian.Uint32(head[1:])
	if size > maxQuestionBytes {
		return errQuestion
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(in, data); err != nil {
		return errQuestion
	}
	return s.answer(head[0], data, out)
}

func (s *session) answer(kind byte, data []byte, out io.Writer) (err error) {
	line := ""
	switch kind {
	case 'T':
		line = "trust"
		if s.trust, err = sigverify.OpenTrust(string(data)); err != nil {
			line = "bad-trust"
		}
	case 'P':
		s.options.Platform = string(data)
		if len(data) == 0 {
			s.options.Platform = sigverify.AnyPlatform
		}
		return nil
	case 'N':
		seconds, err := strconv.ParseInt(string(data), 10, 64)
		s.options.Now = time.Unix(seconds, 0)
		return err
	case 'O':
		line = s.verify(data)
	case 'Y':
		line = describe(sigverify.ParsePolicy(data))
	case 'K':
		line = describe(sigverify.ParseKeys(data))
	case 'V', 'M':
		line = s.setting(data, kind == 'M')
	case 'S':
		line = checkSignature(data)
	default:
		return errQuestion
	}
	_, err = fmt.Fprintln(out, line)
	return err
}

func (s *session) verify(data []byte) string {
	statement, err := sigverify.Verify(data, s.trust, s.options)
	var refused *sigverify.RefusedError
	switch {
	case errors.As(err, &refused):
		return string(refused.Reason)
	case err != nil:
		return "error: " + err.Error()
	}
	line := fmt.Sprintf("accepted %x", statement.Digest)
	for _, id := range statement.KeyIDs {
		line += fmt.Sprintf(" %x", id)
	}
	return line
}

// setting answers whether the signers of an object allow NAME=VALUE, the line before it.
func (s *session) setting(data []byte, isSize bool) string {
	line, object, _ := bytes.Cut(data, []byte("\n"))
	name, value, _ := strings.Cut(string(line), "=")
	options := s.options
	options.Platform = sigverify.AnyPlatform
	statement, err := sigverify.Verify(object, s.trust, options)
	var refused *sigverify.RefusedError
	if errors.As(err, &refused) {
		return string(refused.Reason)
	}
	if err != nil {
		return "error: " + err.Error()
	}
	allowed := statement.AllowsValue(name, value)
	if isSize {
		entries, err := strconv.ParseUint(value, 10, 32)
		allowed = err == nil && statement.AllowsEntries(name, uint32(entries))
	}
	if allowed {
		return "allowed"
	}
	return "denied"
}

func describe(trust *sigverify.Trust, err error) string {
	if err != nil {
		return "bad-trust"
	}
	return trust.String()
}

func checkSignature(data []byte) string {
	const head = strict.KeySize + strict.SignatureSize
	switch {
	case len(data) < head:
		return "error: too short"
	case !strict.IsKey(data[:strict.KeySize]):
		return "weak-key"
	case !strict.Verify(data[:strict.KeySize], data[head:], data[strict.KeySize:head]):
		return "bad-signature"
	}
	return "good"
}
