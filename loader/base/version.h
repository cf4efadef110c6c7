/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_VERSION_H
#define LOADER_BASE_VERSION_H

#define LOADER_VERSION "0.1.0"

#endif
