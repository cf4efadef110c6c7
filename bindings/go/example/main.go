// SPDX-License-Identifier: Apache-2.0

// Command example TRUST OBJECT opens an object with cilium/ebpf, after its signatures were verified. TRUST is a
// directory of .pub files, or a policy.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"buildtool/sigverify"
	"github.com/cilium/ebpf"
)

// openObject returns the object's programs and maps. No byte of the file is read a second time.
func openObject(trustPath, objectPath string) (*ebpf.CollectionSpec, error) {
	trust, err := sigverify.OpenTrust(trustPath)
	if err != nil {
		return nil, err
	}
	data, statement, err := sigverify.VerifyFile(objectPath, trust, sigverify.Options{})
	if err != nil {
		return nil, err
	}
	fmt.Printf("accepted %s of %s, version %d\n", statement.Name, statement.Project, statement.Version)
	return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(data))
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: example TRUST OBJECT")
		os.Exit(2)
	}
	spec, err := openObject(os.Args[1], os.Args[2])
	var refused *sigverify.RefusedError
	if errors.As(err, &refused) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Continue as usual, for example with ebpf.NewCollection(spec) or spec.LoadAndAssign(&objects, nil).
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		fmt.Println("program", name, spec.Programs[name].Type)
	}
}
