#include "config/config.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "config/bytes.h"
#include "config/config_impl.h"

/* ---- values
 * ------------------------------------------------------------------------------------------------------ */

static enum status bool_parse(struct strview text, bool *ret_value)
{
    if (sv_eq_nocase(text, SV("true")) || sv_eq(text, SV("1")))
        *ret_value = true;
    else if (sv_eq_nocase(text, SV("false")) || sv_eq(text, SV("0")))
        *ret_value = false;
    else
        return STATUS_INVALID_ARGUMENT;
    return STATUS_OK;
}

const char *config_number_format(enum config_type type, int64_t value, char ret_text[NUMBER_TEXT_MAX])
{
    if (type == CONFIG_DURATION) return duration_format(value, ret_text);
    if (type == CONFIG_BYTES) return bytes_format(value, ret_text);
    (void)snprintf(ret_text, NUMBER_TEXT_MAX, "%" PRId64, value);
    return ret_text;
}

static const char *expected_form(enum config_type type)
{
    switch (type) {
    case CONFIG_INT:
        return "a whole number";
    case CONFIG_DURATION:
        return "a duration such as 30s, 250ms or 1m30s";
    case CONFIG_BYTES:
        return "a size such as 65536, 64KiB or 8MiB";
    case CONFIG_BOOL:
        return "true, 1, false or 0";
    case CONFIG_TEXT:
    case CONFIG_PATH:
        break;
    }
    return "text";
}

bool config_has_range(const struct config_option *o)
{
    bool is_number = o->type == CONFIG_INT || o->type == CONFIG_DURATION || o->type == CONFIG_BYTES;
    return is_number && (o->min != 0 || o->max != 0);
}

/* "--listen" on the command line, "exec_timeout" from the environment: what the user wrote. */
struct source {
    const char *dashes, *name;
};

static enum status set_number(const struct config_option *o, struct source from, const char *text,
                              int64_t *ret_value, struct error *err)
{
    int64_t value;
    enum status s = o->type == CONFIG_INT        ? sv_parse_i64(sv(text), &value)
                    : o->type == CONFIG_DURATION ? duration_parse(sv(text), &value)
                                                 : bytes_parse(sv(text), &value);
    char min[NUMBER_TEXT_MAX], max[NUMBER_TEXT_MAX];
    if (config_has_range(o)) {
        config_number_format(o->type, o->min, min);
        config_number_format(o->type, o->max, max);
        if (s != STATUS_OK)
            return error_set(err, s, "%s%s: '%s' is not %s in the range %s to %s", from.dashes, from.name,
                             text, expected_form(o->type), min, max);
        if (value < o->min || value > o->max)
            return error_set(err, STATUS_INVALID_ARGUMENT, "%s%s: '%s' is out of range, allowed are %s to %s",
                             from.dashes, from.name, text, min, max);
    }
    if (s != STATUS_OK)
        return error_set(err, s, "%s%s: '%s' is not %s", from.dashes, from.name, text,
                         expected_form(o->type));
    *ret_value = value;
    return STATUS_OK;
}

static enum status set_value(const struct config_option *o, struct source from, const char *text,
                             struct arena *a, void *cfg, struct error *err)
{
    void *field = (char *)cfg + o->offset;
    switch (o->type) {
    case CONFIG_TEXT:
    case CONFIG_PATH:
        *(const char **)field = arena_cstr(a, sv(text));
        return STATUS_OK;
    case CONFIG_BOOL:
        if (bool_parse(sv(text), field) == STATUS_OK) return STATUS_OK;
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s%s: '%s' is not %s", from.dashes, from.name, text,
                         expected_form(o->type));
    case CONFIG_INT:
    case CONFIG_DURATION:
    case CONFIG_BYTES:
        break;
    }
    return set_number(o, from, text, field, err);
}

static void clear_value(const struct config_option *o, void *cfg)
{
    void *field = (char *)cfg + o->offset;
    if (o->type == CONFIG_BOOL)
        *(bool *)field = false;
    else if (o->type == CONFIG_TEXT || o->type == CONFIG_PATH)
        *(const char **)field = NULL;
    else
        *(int64_t *)field = 0;
}

/* ---- sources
 * ----------------------------------------------------------------------------------------------------- */

static enum status load_defaults(const struct config_option *options, size_t n, struct arena *a, void *cfg)
{
    for (size_t i = 0; i < n; i++) {
        const struct config_option *o = &options[i];
        clear_value(o, cfg);
        if (o->default_text == NULL) continue;
        struct source from = {"default of ", o->name ? o->name : o->env};
        enum status s = set_value(o, from, o->default_text, a, cfg, NULL);
        assert(s == STATUS_OK); /* the table is ours */
        (void)s;
    }
    return STATUS_OK;
}

static enum status load_environment(const struct config_option *options, size_t n, struct arena *a, void *cfg,
                                    struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (options[i].env == NULL) continue;
        const char *text = getenv(options[i].env);
        if (text == NULL || text[0] == '\0') continue; /* set but empty means unset, as for of-watchdog */
        enum status s = set_value(&options[i], (struct source){"", options[i].env}, text, a, cfg, err);
        if (s != STATUS_OK) return s;
    }
    return STATUS_OK;
}

static const struct config_option *find_long(const struct config_option *options, size_t n,
                                             struct strview name)
{
    for (size_t i = 0; i < n; i++)
        if (options[i].name != NULL && sv_eq(sv(options[i].name), name)) return &options[i];
    return NULL;
}

static const struct config_option *find_short(const struct config_option *options, size_t n, char c)
{
    for (size_t i = 0; i < n; i++)
        if (options[i].short_name != 0 && options[i].short_name == c) return &options[i];
    return NULL;
}

static enum status unknown_option(const struct config_option *options, size_t n, const char *arg,
                                  struct strview name, struct arena *a, struct error *err)
{
    const char **names = arena_array(a, n, sizeof(*names));
    size_t n_names = 0;
    for (size_t i = 0; i < n; i++)
        if (options[i].name != NULL) names[n_names++] = options[i].name;
    const char *nearest = name.len > 1 ? config_nearest(arena_cstr(a, name), names, n_names) : NULL;
    int shown = (int)(name.len + (size_t)(name.ptr - arg));
    if (nearest == NULL) return error_set(err, STATUS_INVALID_ARGUMENT, "unknown option %.*s", shown, arg);
    return error_set(err, STATUS_INVALID_ARGUMENT, "unknown option %.*s, did you mean --%s?", shown, arg,
                     nearest);
}

/* One option at argv[i]: "--name=v", "--name v", "-nv", "-n v"; a bool takes "=v" only. *ret_used: arguments
 * it took. */
static enum status load_option(const struct config_option *options, size_t n, char *const *argv, int i,
                               int argc, struct arena *a, void *cfg, int *ret_used, struct error *err)
{
    const char *arg = argv[i], *value = NULL;
    bool is_long = arg[1] == '-';
    struct strview name;
    const struct config_option *o;
    if (is_long) {
        struct strview rest = sv(arg + 2);
        size_t equals = sv_find(rest, '=');
        name = sv_sub(rest, 0, equals);
        if (equals < rest.len) value = rest.ptr + equals + 1;
        o = find_long(options, n, name);
    } else {
        name = sv_n(arg + 1, 1);
        if (arg[2] != '\0') value = arg + 2;
        o = find_short(options, n, arg[1]);
    }
    if (o == NULL) return unknown_option(options, n, arg, name, a, err);
    *ret_used = 1;
    char letter[2] = {arg[1], '\0'};
    struct source from = is_long ? (struct source){"--", o->name} : (struct source){"-", letter};
    if (value == NULL && o->type == CONFIG_BOOL) value = "true";
    if (value == NULL) {
        if (i + 1 >= argc)
            return error_set(err, STATUS_INVALID_ARGUMENT, "%s%s: needs a value, %s", from.dashes, from.name,
                             expected_form(o->type));
        value = argv[i + 1];
        *ret_used = 2;
    }
    return set_value(o, from, value, a, cfg, err);
}

static enum status load_arguments(const struct config_option *options, size_t n, int argc, char **argv,
                                  struct arena *a, void *cfg, int *ret_n_positional, struct error *err)
{
    /* Both groups keep their order; argv keeps all its pointers, since ps and setproctitle live off them. */
    char **others = arena_array(a, (size_t)argc + 1, sizeof(*others));
    int n_positional = 0, n_others = 0;
    bool is_after_dashes = false;
    for (int i = 1; i < argc;) {
        if (is_after_dashes || argv[i][0] != '-' ||
            argv[i][1] == '\0') { /* "-" alone is standard input by custom */
            argv[1 + n_positional++] = argv[i++];
            continue;
        }
        int used = 1;
        if (strcmp(argv[i], "--") == 0) {
            is_after_dashes = true;
        } else {
            enum status s = load_option(options, n, argv, i, argc, a, cfg, &used, err);
            if (s != STATUS_OK) return s;
        }
        while (used-- > 0)
            others[n_others++] = argv[i++];
    }
    for (int i = 0; i < n_others; i++)
        argv[1 + n_positional + i] = others[i];
    *ret_n_positional = n_positional;
    return STATUS_OK;
}

enum status config_load(const struct config_option *options, size_t n, int argc, char **argv, struct arena *a,
                        void *ret_cfg, int *ret_n_positional, struct error *err)
{
    enum status s = load_defaults(options, n, a, ret_cfg);
    if (s == STATUS_OK) s = load_environment(options, n, a, ret_cfg, err);
    int n_positional = 0;
    if (s == STATUS_OK) s = load_arguments(options, n, argc, argv, a, ret_cfg, &n_positional, err);
    if (s == STATUS_OK && ret_n_positional != NULL) *ret_n_positional = n_positional;
    return s;
}

/* ---- nearest name
 * ------------------------------------------------------------------------------------------------ */

enum { WORD_MAX = 64 };

/* Insertions, deletions, replacements and swaps of neighbours (optimal string alignment): typing errors, that
 * is. */
static size_t edit_distance(struct strview a, struct strview b)
{
    size_t rows[3][WORD_MAX + 1] = {{0}};
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b.len; j++)
        last[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t best = last[j - 1] + (a.ptr[i - 1] != b.ptr[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            bool is_swap = i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] && a.ptr[i - 2] == b.ptr[j - 1];
            if (is_swap && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            row[j] = best;
        }
        size_t *free_row = before;
        before = last;
        last = row;
        row = free_row;
    }
    return last[b.len];
}

const char *config_nearest(const char *word, const char *const *names, size_t n)
{
    struct strview w = sv(word);
    if (w.len > WORD_MAX) return NULL;
    const char *nearest = NULL;
    size_t best = w.len / 2 + 1;
    for (size_t i = 0; i < n; i++) {
        struct strview name = sv(names[i]);
        if (name.len > WORD_MAX) continue;
        size_t distance = edit_distance(w, name);
        if (distance >= best) continue;
        best = distance;
        nearest = names[i];
    }
    return nearest;
}
