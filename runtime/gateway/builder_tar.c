#include "gateway/builder_tar.h"

#include <string.h>

#include "config/quote.h"

#define BLOCK 512

/* A header's fields: where each begins and how long it is. */
enum {
    NAME = 0,
    NAME_LEN = 100,
    MODE = 100,
    MODE_LEN = 8,
    SIZE = 124,
    SIZE_LEN = 12,
    SUM = 148,
    SUM_LEN = 8
};
enum { TYPE = 156, MAGIC = 257, MAGIC_LEN = 5, PREFIX = 345, PREFIX_LEN = 155 };

void tar_reader_init(struct tar_reader *t, struct strview bytes)
{
    *t = (struct tar_reader){.bytes = bytes};
}

static enum status broken(const struct tar_reader *t, const char *what, struct error *err)
{
    return error_set(err, STATUS_INVALID_ARGUMENT, "the archive is broken at byte %zu: %s", t->at, what);
}

static enum status refused(struct strview name, const char *why, struct error *err)
{
    char shown[QUOTE_MAX];
    return error_set(err, STATUS_INVALID_ARGUMENT, "the archive's '%s' %s", quote_text(name, shown), why);
}

/* ---- one header ---- */

static struct strview field(const char *block, size_t at, size_t len)
{
    const char *end = memchr(block + at, '\0', len);
    return sv_n(block + at, end != NULL ? (size_t)(end - block) - at : len);
}

static bool parse_octal(struct strview text, uint64_t *ret_value)
{
    text = sv_trim(text);
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '7') return false; /* GNU's binary numbers are for 8 GiB */
        value = value * 8 + (uint64_t)(text.ptr[i] - '0');
    }
    *ret_value = value;
    return text.len > 0 && text.len <= SIZE_LEN;
}

static bool has_sum(const char *block)
{
    uint64_t said, sum = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= SUM && i < SUM + SUM_LEN ? ' ' : (unsigned char)block[i];
    return parse_octal(field(block, SUM, SUM_LEN), &said) && said == sum;
}

static bool is_zero(const char *block)
{
    for (size_t i = 0; i < BLOCK; i++)
        if (block[i] != '\0') return false;
    return true;
}

struct header {
    char type;
    uint64_t mode;
    struct strview name, content;
};

static struct strview header_name(const char *block, struct arena *a)
{
    struct strview name = field(block, NAME, NAME_LEN), prefix = {0};
    if (memcmp(block + MAGIC, "ustar", MAGIC_LEN) == 0 && block[MAGIC + MAGIC_LEN] == '\0')
        prefix = field(block, PREFIX, PREFIX_LEN);
    return prefix.len > 0 ? arena_printf(a, "%.*s/%.*s", SV_ARG(prefix), SV_ARG(name)) : name;
}

/* STATUS_NOT_FOUND: there is none. */
static enum status read_header(struct tar_reader *t, struct arena *a, struct header *h, struct error *err)
{
    size_t left = t->bytes.len - t->at;
    const char *block = t->bytes.ptr + t->at;
    uint64_t size;
    if (left == 0 || (left >= BLOCK && is_zero(block)))
        return error_set(err, STATUS_NOT_FOUND, "the archive ends here");
    if (left < BLOCK) return broken(t, "it ends within a header", err);
    if (!has_sum(block)) return broken(t, "a header's checksum is wrong", err);
    if (!parse_octal(field(block, SIZE, SIZE_LEN), &size) || size > left - BLOCK)
        return broken(t, "it ends within a file", err);
    if (!parse_octal(field(block, MODE, MODE_LEN), &h->mode)) h->mode = 0;
    h->type = block[TYPE];
    h->name = header_name(block, a);
    h->content = sv_n(block + BLOCK, (size_t)size);
    size_t padded = BLOCK + ((size_t)size + BLOCK - 1) / BLOCK * BLOCK;
    t->at += padded < left ? padded : left;
    if (++t->n_entries > TAR_ENTRIES_MAX) return broken(t, "it has too many entries", err);
    return STATUS_OK;
}

/* "LENGTH KEY=VALUE\n", as many as there are. */
static enum status read_pax(const struct tar_reader *t, struct strview records, struct strview *ret_name,
                            struct error *err)
{
    while (records.len > 0) {
        uint64_t len;
        size_t space = sv_find(records, ' ');
        if (space > 10 || sv_parse_u64(sv_sub(records, 0, space), &len) != STATUS_OK || len > records.len ||
            len < space + 3 || records.ptr[len - 1] != '\n')
            return broken(t, "a pax record is wrong", err);
        struct strview record = sv_sub(records, space + 1, (size_t)len - 1);
        struct strview key = sv_sub(record, 0, sv_find(record, '='));
        if (sv_eq(key, SV("path"))) *ret_name = sv_sub(record, key.len + 1, record.len);
        if (sv_eq(key, SV("size")) || sv_starts_with(key, SV("GNU.sparse")))
            return broken(t, "a pax record says another size", err);
        records = sv_sub(records, (size_t)len, records.len);
    }
    return STATUS_OK;
}

/* ---- entries ---- */

static enum status check_name(struct strview name, struct error *err)
{
    struct strview rest = name, part;
    unsigned depth = 0;
    if (name.len == 0 || name.len > TAR_NAME_MAX) return refused(name, "is no name, or too long", err);
    if (!sv_is_utf8(name)) return refused(name, "is not UTF-8", err);
    for (size_t i = 0; i < name.len; i++)
        if ((unsigned char)name.ptr[i] < ' ' || name.ptr[i] == 0x7f)
            return refused(name, "has a control character in its name", err);
    if (name.ptr[0] == '/') return refused(name, "is an absolute path", err);
    while (sv_next(&rest, '/', &part)) {
        if (part.len == 0 || sv_eq(part, SV(".")) || sv_eq(part, SV("..")))
            return refused(name, "does not lead plainly downwards", err);
        if (++depth > TAR_DEPTH_MAX) return refused(name, "lies too deep", err);
    }
    return STATUS_OK;
}

static enum status take_entry(const struct header *h, struct strview name, struct tar_entry *ret_entry,
                              struct error *err)
{
    bool is_folder = h->type == '5';
    if (!is_folder && h->type != '0' && h->type != '\0')
        return refused(name, "is neither a file nor a folder", err);
    if (is_folder && sv_ends_with(name, SV("/"))) name = sv_sub(name, 0, name.len - 1);
    enum status s = check_name(name, err);
    if (s != STATUS_OK) return s;
    *ret_entry = (struct tar_entry){.name = name,
                                    .content = is_folder ? sv(NULL) : h->content,
                                    .is_folder = is_folder,
                                    .is_executable = (h->mode & 0100) != 0};
    return STATUS_OK;
}

enum status tar_next(struct tar_reader *t, struct arena *a, struct tar_entry *ret_entry, struct error *err)
{
    struct strview long_name = {0};
    for (;;) {
        struct header h;
        enum status s = read_header(t, a, &h, err);
        if (s == STATUS_NOT_FOUND && long_name.len > 0) return broken(t, "it ends behind a name", err);
        if (s != STATUS_OK) return s;
        if (h.type == 'x')
            s = read_pax(t, h.content, &long_name, err);
        else if (h.type == 'L')
            long_name = sv_sub(h.content, 0, sv_find(h.content, '\0'));
        else if (h.type != 'g') /* one for all that follow: nothing that matters here */
            return take_entry(&h, long_name.len > 0 ? long_name : h.name, ret_entry, err);
        if (s != STATUS_OK) return s;
    }
}
