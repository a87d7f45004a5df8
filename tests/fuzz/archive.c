/* The archive of a build: whatever it holds, every name leads downwards, every content lies within it, and it
 * ends. */
#include "gateway/builder_tar.h"

#include <assert.h>
#include <string.h>

#include "replay.h"

static void check_name(struct strview name)
{
    struct strview rest = name, part;
    assert(name.len > 0 && name.len <= TAR_NAME_MAX && name.ptr[0] != '/' && sv_is_utf8(name));
    assert(memchr(name.ptr, '\0', name.len) == NULL);
    while (sv_next(&rest, '/', &part))
        assert(part.len > 0 && !sv_eq(part, SV(".")) && !sv_eq(part, SV("..")));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena a = {0};
    struct tar_reader t;
    struct tar_entry e;
    struct error err;
    struct strview archive = sv_n((const char *)bytes, n);
    enum status s;
    tar_reader_init(&t, archive);
    while ((s = tar_next(&t, &a, &e, &err)) == STATUS_OK) {
        check_name(e.name);
        if (e.content.len > 0)
            assert(e.content.ptr >= archive.ptr && e.content.ptr + e.content.len <= archive.ptr + n);
        assert(!e.is_folder || e.content.len == 0);
        assert(t.n_entries <= TAR_ENTRIES_MAX && t.at <= n);
    }
    assert(s == STATUS_NOT_FOUND || s == STATUS_INVALID_ARGUMENT);
    arena_release(&a);
    return 0;
}
