#include "audit/notes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"

bool notes_next(FILE *file, uint64_t *bytes_left, struct buf *note)
{
    unsigned empty_lines = 0;
    bool is_line_start = true;
    int c;
    buf_reset(note);
    while (*bytes_left > 0 && (c = getc(file)) != EOF) {
        (*bytes_left)--;
        if (c == '\n' && is_line_start && ++empty_lines == 2) break;
        is_line_start = c == '\n';
        buf_append_char(note, (char)c);
        if (note->is_full) return true;
    }
    return empty_lines == 2;
}

bool notes_find_last(struct strview tail, bool is_whole_file, size_t before, struct strview origin,
                     size_t *ret_start)
{
    for (size_t i = before; i > 0; i--) {
        size_t at = i - 1;
        bool is_start =
            at == 0 ? is_whole_file : at >= 2 && tail.ptr[at - 1] == '\n' && tail.ptr[at - 2] == '\n';
        if (!is_start) continue;
        struct strview rest = sv_sub(tail, at, tail.len);
        if (!sv_starts_with(rest, origin) || rest.len <= origin.len || rest.ptr[origin.len] != '\n') continue;
        *ret_start = at;
        return true;
    }
    return false;
}

bool notes_take(struct strview rest, struct strview *ret_note)
{
    unsigned empty_lines = 0;
    for (size_t i = 1; i < rest.len; i++) {
        if (rest.ptr[i] != '\n' || rest.ptr[i - 1] != '\n') continue;
        if (++empty_lines < 2) continue;
        *ret_note = sv_sub(rest, 0, i);
        return true;
    }
    return false;
}

/* ---- kept elsewhere ---- */

static int by_size(const void *a, const void *b)
{
    uint64_t x = ((const struct checkpoint *)a)->size, y = ((const struct checkpoint *)b)->size;
    return (x > y) - (x < y);
}

struct kept {
    struct checkpoint *items;
    size_t n, capacity;
};

static enum status add_kept(struct kept *kept, const struct audit_key *k, struct strview note,
                            struct error *err)
{
    struct arena a = {0};
    struct checkpoint c;
    enum status s = checkpoint_verify(k, note, &a, &c, err);
    arena_release(&a);
    if (s != STATUS_OK) return s;
    c.origin = SV(""); /* it lived in the arena */
    if (kept->n == kept->capacity) {
        kept->capacity = kept->capacity > 0 ? kept->capacity * 2 : 16;
        kept->items = mem_realloc(kept->items, kept->capacity * sizeof(*kept->items));
    }
    kept->items[kept->n++] = c;
    return STATUS_OK;
}

enum status notes_read_kept(const struct audit_key *k, const char *path, struct checkpoint **ret_checkpoints,
                            size_t *ret_n, struct error *err)
{
    struct arena a = {0};
    struct kept kept = {0};
    struct strview text, note;
    enum status s = file_read(&a, path, NOTES_KEPT_MAX, &text, err);
    if (s == STATUS_NOT_FOUND) s = error_set(err, STATUS_INVALID_ARGUMENT, "there is no file '%s'", path);
    while (s == STATUS_OK && text.len > 0) {
        if (notes_take(text, &note)) {
            text = sv_sub(text, note.len + 1, text.len);
        } else {
            note = text;
            text = SV("");
        }
        s = add_kept(&kept, k, note, err);
        if (s != STATUS_OK) s = error_prefix(err, s, "checkpoint %zu of '%s'", kept.n + 1, path);
    }
    if (s == STATUS_OK && kept.n == 0)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "there is no checkpoint in '%s'", path);
    arena_release(&a);
    if (s != STATUS_OK) {
        free(kept.items);
        return s;
    }
    qsort(kept.items, kept.n, sizeof(*kept.items), by_size);
    *ret_checkpoints = kept.items;
    *ret_n = kept.n;
    return STATUS_OK;
}

/* ---- the newest ---- */

/* The last bytes of the file. */
static enum status read_tail(const char *path, struct arena *a, struct strview *ret_tail, bool *ret_is_whole,
                             struct error *err)
{
    struct stat st;
    FILE *file = fopen(path, "rbe");
    if (file == NULL) return error_set(err, status_from_errno(errno), "open '%s': %s", path, strerror(errno));
    off_t from =
        fstat(fileno(file), &st) == 0 && st.st_size > NOTES_TAIL_MAX ? st.st_size - NOTES_TAIL_MAX : 0;
    char *bytes = arena_alloc(a, NOTES_TAIL_MAX);
    size_t n = fseeko(file, from, SEEK_SET) == 0 ? fread(bytes, 1, NOTES_TAIL_MAX, file) : 0;
    enum status s = ferror(file) ? error_set(err, STATUS_UNAVAILABLE, "read '%s'", path) : STATUS_OK;
    (void)fclose(file);
    *ret_tail = sv_n(bytes, n);
    *ret_is_whole = from == 0;
    return s;
}

enum status notes_newest(const char *data_dir, const char *public_key_file, struct arena *a,
                         struct strview *ret_note, struct error *err)
{
    struct audit_key *key = NULL;
    struct strview tail, note;
    bool is_whole = false;
    const char *path = arena_printf(a, "%s/audit/checkpoints", data_dir).ptr;
    if (public_key_file == NULL) public_key_file = arena_printf(a, "%s/audit/key.pub", data_dir).ptr;
    enum status s = read_tail(path, a, &tail, &is_whole, err);
    if (s == STATUS_OK) s = audit_key_read_public(public_key_file, &key, err);
    if (s != STATUS_OK) return s;
    struct strview text = audit_key_public_text(key), origin = sv_sub(text, 0, sv_find(text, '+'));
    size_t before = tail.len, start = 0;
    s = error_set(err, STATUS_NOT_FOUND, "there is no checkpoint of '%.*s' in '%s'", SV_ARG(text), path);
    while (s != STATUS_OK && notes_find_last(tail, is_whole, before, origin, &start)) {
        struct checkpoint c;
        if (notes_take(sv_sub(tail, start, tail.len), &note) &&
            checkpoint_verify(key, note, a, &c, NULL) == STATUS_OK) {
            *ret_note = note;
            s = STATUS_OK;
        }
        before = start;
    }
    audit_key_free(key);
    return s;
}
