// SPDX-License-Identifier: Apache-2.0

// Command gadget KEY REFERENCE [ARCHIVE] takes an image as Inspektor Gadget does: it pulls the image from a registry on
// this machine, or imports it from ARCHIVE, verifies its signature with the public key in file KEY, and prints what
// it would run. A file KEY called - stands for no verification. Its store is below /var/lib.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/inspektor-gadget/inspektor-gadget/pkg/oci"
	"github.com/inspektor-gadget/inspektor-gadget/pkg/signature/verifier"
	"github.com/inspektor-gadget/inspektor-gadget/pkg/signature/verifier/cosign"
)

const program = "application/vnd.gadget.ebpf.program.v1+binary"

type answer struct {
	Artifact    string            `json:"artifact"`
	Annotations map[string]string `json:"annotations"`
	Metadata    string            `json:"metadata"`
	Objects     []string          `json:"objects"`
}

func run(key, reference string, archive []string) (*answer, error) {
	ctx := context.Background()
	options := &oci.ImageOptions{
		AuthOptions: oci.AuthOptions{InsecureRegistries: []string{strings.Split(reference, "/")[0]}},
	}
	policy := oci.PullImageAlways
	if len(archive) > 0 {
		if _, err := oci.ImportGadgetImages(ctx, archive[0]); err != nil {
			return nil, err
		}
		policy = oci.PullImageNever
	}
	if err := oci.EnsureImage(ctx, reference, options, policy); err != nil {
		return nil, err
	}
	if key != "-" {
		text, err := os.ReadFile(key)
		if err != nil {
			return nil, err
		}
		trusted := cosign.VerifierOptions{PublicKeys: []string{string(text)}}
		options.Verifier, err = verifier.NewSignatureVerifier(verifier.VerifierOptions{CosignVerifierOpts: trusted})
		if err != nil {
			return nil, err
		}
		options.VerifySignature = true
		if err := oci.VerifyGadgetImage(ctx, reference, options); err != nil {
			return nil, err
		}
	}
	manifest, err := oci.GetManifestForHost(ctx, nil, reference)
	if err != nil {
		return nil, err
	}
	config, err := oci.GetContentFromDescriptor(ctx, nil, manifest.Config)
	if err != nil {
		return nil, err
	}
	metadata, err := io.ReadAll(config)
	if err != nil {
		return nil, err
	}
	found := &answer{
		Artifact:    manifest.ArtifactType,
		Annotations: manifest.Annotations,
		Metadata:    string(metadata),
	}
	for _, layer := range manifest.Layers {
		if layer.MediaType != program {
			continue
		}
		content, err := oci.GetContentFromDescriptor(ctx, nil, layer)
		if err != nil {
			return nil, err
		}
		digest := sha256.New()
		if _, err := io.Copy(digest, content); err != nil {
			return nil, err
		}
		found.Objects = append(found.Objects, hex.EncodeToString(digest.Sum(nil)))
	}
	return found, nil
}

func main() {
	found, err := run(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		panic(err)
	}
}
