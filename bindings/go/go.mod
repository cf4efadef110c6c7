// SPDX-License-Identifier: Apache-2.0

// The path has no host, so that no module proxy can serve another module in its place.
module buildtool/sigverify

go 1.21
