#include "config/bytes.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/list.h"

struct unit {
    const char *name;
    int64_t bytes;
};

/* The last unit is the empty one. */
static const struct unit units[] = {
    {"TiB", INT64_C(1) << 40},
    {"GiB", INT64_C(1) << 30},
    {"MiB", INT64_C(1) << 20},
    {"KiB", INT64_C(1) << 10},
    {"", 1},
};

static const struct unit quantity_units[] = {
    {"Ki", INT64_C(1) << 10},
    {"Mi", INT64_C(1) << 20},
    {"Gi", INT64_C(1) << 30},
    {"Ti", INT64_C(1) << 40},
    {"K", 1000},
    {"k", 1000},
    {"M", 1000000},
    {"m", 1000000},
    {"G", 1000000000},
    {"T", 1000000000000},
    {"", 1},
};

static enum status parse(const struct unit *unit, struct strview text, int64_t *ret_bytes)
{
    while (!sv_ends_with(text, sv(unit->name)))
        unit++;
    uint64_t count;
    int64_t bytes;
    enum status s = sv_parse_u64(sv_sub(text, 0, text.len - sv(unit->name).len), &count);
    if (s != STATUS_OK || count > INT64_MAX || __builtin_mul_overflow((int64_t)count, unit->bytes, &bytes))
        return STATUS_INVALID_ARGUMENT;
    *ret_bytes = bytes;
    return STATUS_OK;
}

enum status bytes_parse(struct strview text, int64_t *ret_bytes)
{
    return parse(units, text, ret_bytes);
}

enum status bytes_parse_quantity(struct strview text, int64_t *ret_bytes)
{
    return parse(quantity_units, text, ret_bytes);
}

const char *bytes_format(int64_t bytes, char ret_text[BYTES_TEXT_MAX])
{
    size_t i = bytes == 0 ? ARRAY_LEN(units) - 1 : 0;
    while (bytes % units[i].bytes != 0)
        i++;
    (void)snprintf(ret_text, BYTES_TEXT_MAX, "%" PRId64 "%s", bytes / units[i].bytes, units[i].name);
    return ret_text;
}
