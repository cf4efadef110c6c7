// SPDX-License-Identifier: Apache-2.0

package sigverify

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	policyName = "policy.json"
	maxEntries = 1024 // of a directory of keys
)

// OpenTrust reads a trust store: a directory of .pub files or with a policy.json, one .pub file, or a policy
// of any other name (spec/trust-policy.md). An attacker who can write the store can accept any object.
func OpenTrust(path string) (*Trust, error) {
	t, err := readTrust(path)
	if err != nil {
		return nil, fmt.Errorf("trust store %s: %w", path, plain(err))
	}
	return t, nil
}

// VerifyFile reads a file once, with the store's bound, and verifies the bytes. Load the returned bytes, and
// do not open the path again. An unreadable file gives another error than a RefusedError.
func VerifyFile(path string, trust *Trust, options Options) ([]byte, *Statement, error) {
	if trust == nil {
		return nil, nil, errNoTrust
	}
	data, err := readFile(path, trust.maxObjectBytes)
	if errors.Is(err, errFileTooLarge) {
		return nil, nil, tooLarge(trust)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("object %s: %w", path, plain(err))
	}
	statement, err := Verify(data, trust, options)
	if err != nil {
		return nil, nil, err
	}
	return data, statement, nil
}

// plain takes the operation and the path from an error, because the caller names the path.
func plain(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

var errFileTooLarge = errors.New("too large")

// readFile reads a regular file of at most the limit. Opening waits for nothing: a FIFO is refused.
func readFile(path string, limit int) ([]byte, error) {
	// Check the type before opening, because opening a device can act.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > int64(limit) {
		return nil, errFileTooLarge
	}
	// Read one byte more than the size, to notice a file that grows during the read.
	data := make([]byte, info.Size()+1)
	n, err := io.ReadFull(file, data)
	if err == nil {
		return nil, errors.New("grew while it was read")
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return data[:n:n], nil
}

func readTrust(path string) (*Trust, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return readDirectory(path)
	}
	if strings.HasSuffix(path, ".pub") {
		return readKeys(filepath.Dir(path), filepath.Base(path))
	}
	return readPolicy(path)
}

func readPolicy(path string) (*Trust, error) {
	data, err := readFile(path, maxPolicyBytes)
	if err != nil {
		return nil, err
	}
	return ParsePolicy(data)
}

// readDirectory uses the keys only if no policy exists: an unreadable policy must not be skipped.
func readDirectory(path string) (*Trust, error) {
	policy := filepath.Join(path, policyName)
	if _, err := os.Lstat(policy); err == nil {
		t, err := readPolicy(policy)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", policyName, plain(err))
		}
		return t, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names, err := listNames(path)
	if err != nil {
		return nil, err
	}
	return readKeys(path, names...)
}

// listNames returns the names that end in .pub and do not begin with a dot.
func listNames(path string) ([]string, error) {
	directory, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer directory.Close()
	var found []string
	count := 0
	for {
		names, err := directory.Readdirnames(maxEntries)
		for _, name := range names {
			// Names of editors' temporary files and of Kubernetes' links (..data) begin with a dot.
			if strings.HasPrefix(name, ".") {
				continue
			}
			count++
			if strings.HasSuffix(name, ".pub") {
				found = append(found, name)
			}
		}
		if count > maxEntries {
			return nil, fmt.Errorf("more than %d files in it", maxEntries)
		}
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func readKeys(directory string, names ...string) (*Trust, error) {
	t := newTrust()
	for _, name := range names {
		data, err := readFile(filepath.Join(directory, name), maxKeyBytes)
		if err == nil {
			err = t.addPEM(data)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, plain(err))
		}
	}
	return t.finishKeys()
}
