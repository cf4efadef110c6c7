/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_SECTION_TYPES_H
#define LOADER_VERIFY_SECTION_TYPES_H

/* Return the type that libbpf gives to programs of the section, or "unspec". */
const char *section_types__find(const char *section_name);

#endif
