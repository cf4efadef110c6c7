/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_SECTION_TYPES_H
#define LOADER_VERIFY_SECTION_TYPES_H

/* The type of programs in the section of this name, as libbpf has it, or "unspec". */
const char *section_types__find(const char *section_name);

#endif
