#include "cli/backup.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define MANIFEST_BYTES_MAX (64 * 1024 * 1024)
#define DUMP_FLAGS         (JSON_INDENT(2) | JSON_SORT_KEYS)

/* ---- writing ---- */

static json_t *files_json(const struct backup_manifest *m)
{
    json_t *list = json_array();
    for (size_t i = 0; i < m->n_files; i++)
        (void)json_array_append_new(list, json_pack("{s:I, s:o, s:s}", "bytes", (json_int_t)m->files[i].bytes,
                                                    "path", json_text(m->files[i].path), "sha256",
                                                    m->files[i].sha256));
    return list;
}

/* Of everything but the member itself. Holds for every format to come: a newer one is to be told from a
 * damaged one. */
static void hash_members(const json_t *manifest, char ret_hex[SHA256_HEX + 1])
{
    struct arena a = {0};
    json_t *rest = json_copy((json_t *)(uintptr_t)manifest);
    (void)json_object_del(rest, "sha256");
    sha256_hex(json_canonical(&a, rest), ret_hex);
    json_release(rest);
    arena_release(&a);
}

enum status backup_manifest_write(const char *dir, const struct backup_manifest *m, struct error *err)
{
    struct arena a = {0};
    char hex[SHA256_HEX + 1];
    json_t *o =
        json_pack("{s:i, s:o, s:o, s:I, s:I, s:o, s:o, s:b, s:o}", "format", BACKUP_FORMAT, "balm",
                  json_text(m->version), "made", json_text(m->made), "first", (json_int_t)m->first_seq,
                  "last", (json_int_t)m->last_seq, "root", json_text(m->root), "checkpoint",
                  json_text(m->checkpoint), "withoutSecrets", m->is_without_secrets, "files", files_json(m));
    hash_members(o, hex);
    (void)json_object_set_new(o, "sha256", json_string(hex));
    char *text = json_dumps(o, DUMP_FLAGS);
    enum status s = file_write_atomic(arena_printf(&a, "%s/" BACKUP_MANIFEST, dir).ptr,
                                      arena_printf(&a, "%s\n", text), 0600, err);
    free(text);
    json_release(o);
    arena_release(&a);
    return s;
}

/* ---- reading ---- */

static enum status damaged(const char *path, const char *why, struct error *err)
{
    return error_set(err, STATUS_DATA_LOSS, "the backup is damaged: %s: %s", path, why);
}

/* The text must be the one that its content is written as: then no byte of it is beyond the hash. */
static enum status check_bytes(const char *path, struct strview text, const json_t *o, struct error *err)
{
    char hex[SHA256_HEX + 1];
    if (!json_is_object(o)) return damaged(path, "it is no JSON object", err);
    hash_members(o, hex);
    if (!sv_eq(json_get_text(o, "sha256"), sv(hex)))
        return damaged(path, "its own sha256 is not that of its content", err);
    json_int_t format = json_integer_value(json_object_get(o, "format"));
    if (format > BACKUP_FORMAT)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "%s has format %lld, made by balm %s; this is balm %s, which reads up to %d", path,
                         (long long)format, json_string_value(json_object_get(o, "balm")), BALM_VERSION,
                         BACKUP_FORMAT);
    char *again = json_dumps(o, DUMP_FLAGS);
    bool is_same = again != NULL && text.len == strlen(again) + 1 &&
                   memcmp(text.ptr, again, text.len - 1) == 0 && text.ptr[text.len - 1] == '\n';
    free(again);
    return is_same ? STATUS_OK : damaged(path, "it is not written as balm writes it", err);
}

static enum status parse_file(const char *path, const json_t *o, struct arena *a, struct backup_file *f,
                              struct error *err)
{
    struct strview hex = json_get_text(o, "sha256");
    f->path = arena_copy(a, json_get_text(o, "path"));
    f->bytes = (uint64_t)json_integer_value(json_object_get(o, "bytes"));
    if (hex.len != SHA256_HEX || !backup_parts_know(f->path))
        return error_set(err, STATUS_DATA_LOSS, "the backup is damaged: %s lists '%s', which no backup has",
                         path, cli_shown(a, f->path).ptr);
    memcpy(f->sha256, hex.ptr, SHA256_HEX);
    f->sha256[SHA256_HEX] = '\0';
    return STATUS_OK;
}

static enum status parse_files(const char *path, const json_t *list, struct arena *a,
                               struct backup_manifest *m, struct error *err)
{
    enum status s = STATUS_OK;
    size_t n = json_array_size(list);
    if (n > BACKUP_FILES_MAX) return damaged(path, "it lists more files than a backup can have", err);
    m->files = arena_array(a, n, sizeof(*m->files));
    for (; m->n_files < n && s == STATUS_OK; m->n_files++)
        s = parse_file(path, json_array_get(list, m->n_files), a, &m->files[m->n_files], err);
    return s;
}

enum status backup_manifest_read(const char *dir, struct arena *a, struct backup_manifest *ret_manifest,
                                 struct error *err)
{
    struct strview text;
    struct error why = {0};
    json_t *o = NULL;
    const char *path = arena_printf(a, "%s/" BACKUP_MANIFEST, dir).ptr;
    enum status s = file_read(a, path, MANIFEST_BYTES_MAX, &text, err);
    if (s == STATUS_NOT_FOUND)
        return error_set(err, s, "%s is no backup: there is no " BACKUP_MANIFEST " in it", dir);
    if (s != STATUS_OK) return s;
    if (json_parse(text, JSON_REJECT_DUPLICATES, &o, &why) != STATUS_OK)
        return damaged(path, why.message, err);
    s = check_bytes(path, text, o, err);
    struct backup_manifest m = {
        .version = arena_copy(a, json_get_text(o, "balm")),
        .made = arena_copy(a, json_get_text(o, "made")),
        .first_seq = (uint64_t)json_integer_value(json_object_get(o, "first")),
        .last_seq = (uint64_t)json_integer_value(json_object_get(o, "last")),
        .root = arena_copy(a, json_get_text(o, "root")),
        .checkpoint = arena_copy(a, json_get_text(o, "checkpoint")),
        .is_without_secrets = json_is_true(json_object_get(o, "withoutSecrets")),
    };
    if (s == STATUS_OK) s = parse_files(path, json_object_get(o, "files"), a, &m, err);
    json_release(o);
    if (s == STATUS_OK) *ret_manifest = m;
    return s;
}
