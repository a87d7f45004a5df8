/* The broker's allow list: which service may be restarted by which function, and how; which program may be
 * run by which. Parsed whole or refused whole. */
#ifndef BALM_GATEWAY_BROKER_LIST_H
#define BALM_GATEWAY_BROKER_LIST_H

#include "base/arena.h"
#include "config/yaml.h"
#include "gateway/broker_program.h"

struct broker_service {
    struct strview name;
    struct yaml_text_list functions;
    struct strview unit;           /* for systemd; empty: argv only */
    struct yaml_text_list restart; /* argv; restart.items[0] is an absolute path */
    struct strview pid_file;
    const char **restart_argv; /* NULL-terminated copy of `restart` */
    /* One run of a program, which goes the way of a restart (broker_restart.h): its name has PROGRAM_PREFIX.
     */
    int64_t timeout_ns; /* 0: a service's */
};
#define PROGRAM_PREFIX "program:"

struct broker_list {
    struct arena arena;
    struct broker_service *services;
    size_t n;
    struct broker_program *programs;
    size_t n_programs;
};

/* NULL path: an empty list. Refuses a file that somebody other than root or our own user owns, or that others
 * may write. Message: FILE:LINE:COLUMN and what is wrong. *ret_list is released by broker_list_release(). */
enum status broker_list_read(const char *path, struct broker_list *ret_list, struct error *err) MUST_USE;
void broker_list_release(struct broker_list *list);
/* NULL: not on the list. */
const struct broker_service *broker_list_find(const struct broker_list *list, struct strview name);
const struct broker_program *broker_list_find_program(const struct broker_list *list, struct strview name);
bool broker_service_allows(const struct broker_service *s, struct strview function);

#endif
