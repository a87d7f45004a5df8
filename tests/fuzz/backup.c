/* A backup's manifest of any bytes, as it is and with the hash that it should have: what is read is written
 * again as the same bytes, and lists nothing that no backup has.
 *
 * Reads: cli/backup_manifest.c cli/backup_parts.c */
#include "cli/backup.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "folder.h"
#include "replay.h"

static void check_text(struct strview text)
{
    struct arena arena = {0};
    struct backup_manifest m;
    struct error err = {0};
    struct strview again;
    char path[FOLDER_PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s", folder_put(BACKUP_MANIFEST, text));
    if (backup_manifest_read(folder(), &arena, &m, &err) == STATUS_OK) {
        assert(m.n_files <= BACKUP_FILES_MAX);
        for (size_t i = 0; i < m.n_files; i++)
            assert(backup_parts_know(m.files[i].path) && !sv_contains(m.files[i].path, SV("..")) &&
                   m.files[i].path.ptr[0] != '/');
        enum status s = backup_manifest_write(folder(), &m, &err);
        if (s == STATUS_OK) s = file_read(&arena, path, text.len + 1024, &again, &err);
        assert(s == STATUS_OK);
    } else {
        assert(err.code == STATUS_DATA_LOSS || err.code == STATUS_FAILED_PRECONDITION);
    }
    arena_release(&arena);
}

/* With its own hash, as backup_manifest_write() would have it. */
static void check_hashed(struct strview text)
{
    struct arena arena = {0};
    json_t *o = NULL;
    char hex[SHA256_HEX + 1];
    if (json_parse(text, JSON_REJECT_DUPLICATES, &o, NULL) == STATUS_OK && json_is_object(o)) {
        (void)json_object_del(o, "sha256");
        sha256_hex(json_canonical(&arena, o), hex);
        (void)json_object_set_new(o, "sha256", json_string(hex));
        char *whole = json_dumps(o, JSON_INDENT(2) | JSON_SORT_KEYS);
        if (whole != NULL) check_text(arena_printf(&arena, "%s\n", whole));
        free(whole);
    }
    json_release(o);
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    check_text(sv_n((const char *)bytes, n));
    check_hashed(sv_n((const char *)bytes, n));
    return 0;
}
