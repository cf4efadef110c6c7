// SPDX-License-Identifier: Apache-2.0

// A module of its own, so that the verifier needs only the standard library.
module buildtool/sigverify/example

go 1.24.0

require (
	buildtool/sigverify v0.0.0
	github.com/cilium/ebpf v0.21.0
)

require golang.org/x/sys v0.37.0 // indirect

replace buildtool/sigverify => ../
