/* Settings: one typed table per binary feeds parsing (command line over environment over default), --help,
 * the README's table and the message that stops a start on a bad value.
 *
 *   static const struct config_option options[] = {
 *       {.name = "exec_timeout", .env = "exec_timeout", .type = CONFIG_DURATION, .default_text = "30s",
 *        .min = 0, .max = 3600 * NS_PER_S, .offset = offsetof(struct function_cfg, exec_timeout_ns),
 *        .help = "limit of one request"},
 *   };
 *
 * `name` is the long option ("--listen" for "listen"; NULL: environment only). Unknown options are named with
 * the nearest known one. Strings are copied into the config's arena. */
#ifndef BALM_CONFIG_CONFIG_H
#define BALM_CONFIG_CONFIG_H

#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"

enum config_type {
    CONFIG_TEXT,     /* const char * */
    CONFIG_PATH,     /* const char *, completed as a file name by shells */
    CONFIG_INT,      /* int64_t, min..max */
    CONFIG_DURATION, /* int64_t nanoseconds; text as in duration_parse() */
    CONFIG_BYTES,    /* int64_t; "8MiB", "64KiB", "1GiB", plain bytes */
    CONFIG_BOOL,     /* bool; true 1 false 0; as a command line option takes no value */
};

struct config_option {
    const char *name, *env; /* either may be NULL, not both */
    char short_name;        /* 0: none */
    enum config_type type;
    const char *default_text; /* NULL: NULL / 0 / false */
    int64_t min, max;         /* INT, DURATION, BYTES; both 0: not checked */
    size_t offset;            /* into the struct that config_load fills */
    const char *value_name;   /* "DIR" in --help; NULL: by type */
    const char *help;         /* one line, no full stop */
};

/* Fill *ret_cfg (a struct of plain values) from defaults, environment and argv[1…]. Arguments that are no
 * options are moved to the front of argv; *ret_n_positional says how many start at argv[1]. "--" ends
 * options; `--opt=v`, `--opt v`, `-ov` and `-o v`. A variable that is set but empty counts as unset, as for
 * of-watchdog. STATUS_INVALID_ARGUMENT: one sentence with option, value, allowed range or nearest name. */
enum status config_load(const struct config_option *options, size_t n, int argc, char **argv, struct arena *a,
                        void *ret_cfg, int *ret_n_positional, struct error *err) MUST_USE;
/* The options' part of --help, aligned, with defaults, ranges and environment names. */
void config_print_help(const struct config_option *options, size_t n, FILE *out);
/* Markdown table for the README. */
void config_print_markdown(const struct config_option *options, size_t n, FILE *out);
/* Tagged paragraphs for a man page. */
void config_print_roff(const struct config_option *options, size_t n, FILE *out);
/* What the option's value is called in help, "" for a bool. */
const char *config_value_name(const struct config_option *o);
/* The entry of `names` nearest to `word` by edit distance (≤ 1/2 of its length), or NULL. */
const char *config_nearest(const char *word, const char *const *names, size_t n);

#endif
