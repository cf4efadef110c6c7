/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_KERNEL_H
#define LOADER_PIN_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

/* The kernel's answers about a program, a map or a link behind a descriptor. Ids are unique since the boot.
 */

/* The id of a program, a map or a link, or 0. */
uint32_t kernel__program_id(int fd);
uint32_t kernel__map_id(int fd);
uint32_t kernel__link_id(int fd);

/* The id of the program that a link runs, or 0. */
uint32_t kernel__link_program(int fd);

/* Whether user space can no longer write to a map. */
bool kernel__map_is_frozen(int fd);

/* Whether the interface, cgroup or network namespace of a link no longer exists. */
bool kernel__link_is_severed(int fd);

#endif
