#include "config/bytes.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/list.h"

static const struct {
    const char *name;
    int64_t bytes;
} units[] = {
    {"TiB", INT64_C(1) << 40},
    {"GiB", INT64_C(1) << 30},
    {"MiB", INT64_C(1) << 20},
    {"KiB", INT64_C(1) << 10},
    {"", 1},
};

enum status bytes_parse(struct strview text, int64_t *ret_bytes)
{
    size_t i = 0;
    while (!sv_ends_with(text, sv(units[i].name)))
        i++; /* the last unit is the empty one */
    uint64_t count;
    int64_t bytes;
    enum status s = sv_parse_u64(sv_sub(text, 0, text.len - sv(units[i].name).len), &count);
    if (s != STATUS_OK || count > INT64_MAX || __builtin_mul_overflow((int64_t)count, units[i].bytes, &bytes))
        return STATUS_INVALID_ARGUMENT;
    *ret_bytes = bytes;
    return STATUS_OK;
}

const char *bytes_format(int64_t bytes, char ret_text[BYTES_TEXT_MAX])
{
    size_t i = bytes == 0 ? ARRAY_LEN(units) - 1 : 0;
    while (bytes % units[i].bytes != 0)
        i++;
    (void)snprintf(ret_text, BYTES_TEXT_MAX, "%" PRId64 "%s", bytes / units[i].bytes, units[i].name);
    return ret_text;
}
