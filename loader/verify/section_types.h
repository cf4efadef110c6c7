/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_SECTION_TYPES_H
#define LOADER_VERIFY_SECTION_TYPES_H

/* Return the type that libbpf gives to programs of the section, or "unspec". */
const char *section_types__find(const char *section_name);

/* The type of a name that a statement may declare: one of the table without a +. NULL for any other. */
const char *section_types__find_declared(const char *section_name);

#endif
