// SPDX-License-Identifier: Apache-2.0

// Command bpfman CACHE REFERENCE pulls a bytecode image of a registry on this machine as bpfman does, and prints
// what bpfman read from it, what it finds in the object itself, and what it reads for every platform.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/bpfman/bpfman"
	"github.com/bpfman/bpfman/fs"
	"github.com/bpfman/bpfman/platform"
	"github.com/bpfman/bpfman/platform/ebpf"
	"github.com/bpfman/bpfman/platform/image/oci"
)

type labels struct {
	Programs map[string]string `json:"programs"`
	Maps     map[string]string `json:"maps"`
}

type answer struct {
	Digest    string            `json:"digest"`
	Object    string            `json:"object"`
	Labels    labels            `json:"labels"`
	Found     labels            `json:"found"`
	Platforms map[string]labels `json:"platforms"`
}

func run(cacheRoot, reference string) (*answer, error) {
	ctx := context.Background()
	cache, err := fs.NewImageCache(cacheRoot)
	if err != nil {
		return nil, err
	}
	ready, err := fs.EnsureCache(cache)
	if err != nil {
		return nil, err
	}
	puller, err := oci.NewPuller(ready)
	if err != nil {
		return nil, err
	}
	pulled, err := puller.Pull(ctx, platform.ImageRef{URL: reference, PullPolicy: bpfman.PullAlways})
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(pulled.ObjectPath)
	if err != nil {
		return nil, err
	}
	// 0: the byte order was compared with this machine's when the image was pulled.
	info, err := ebpf.InspectBytecode(pulled.ObjectPath, 0)
	if err != nil {
		return nil, err
	}
	inspection, err := oci.InspectBytecodeImage(ctx, reference)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(data)
	found := &answer{
		Digest:    pulled.Digest,
		Object:    hex.EncodeToString(digest[:]),
		Labels:    labels{pulled.Programs, pulled.Maps},
		Found:     labels{info.Programs, info.Maps},
		Platforms: map[string]labels{},
	}
	for _, manifest := range inspection.Manifests {
		found.Platforms[manifest.Platform] = labels{manifest.Programs, manifest.Maps}
	}
	return found, nil
}

func main() {
	found, err := run(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		panic(err)
	}
}
