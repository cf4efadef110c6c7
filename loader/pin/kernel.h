/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_KERNEL_H
#define LOADER_PIN_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

/* The kernel's answers about a program or a link behind a descriptor. */

/* The id of a program, or 0. */
uint32_t kernel__program_id(int fd);

/* The id of the program that a link runs, or 0. */
uint32_t kernel__link_program(int fd);

/* Whether the interface, cgroup or network namespace of a link no longer exists. */
bool kernel__link_is_severed(int fd);

#endif
