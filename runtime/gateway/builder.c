#include "gateway/builder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "log/log.h"

static enum status read_secret(const char *path, struct strview *ret_secret, struct error *err)
{
    struct arena a = {0};
    struct strview text = {0};
    enum status s = secret_file_check(path, err);
    if (s == STATUS_OK) s = file_read(&a, path, BUILDER_SECRET_MAX, &text, err);
    struct strview secret = sv_trim(text); /* as faas-cli does */
    if (s == STATUS_OK && secret.len < BUILDER_SECRET_MIN)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "%s: a payload secret has at least %d characters", path,
                      BUILDER_SECRET_MIN);
    if (s == STATUS_OK) *ret_secret = sv_n(sv_heap_copy(secret), secret.len);
    mem_wipe((char *)(uintptr_t)text.ptr, text.len);
    arena_release(&a);
    return s;
}

/* Of builds that were cut. */
static void remove_left_over(const struct builder *b)
{
    struct arena a = {0};
    const char *functions = b->gateway->cfg.functions_dir;
    builder_remove_tree(b->folder);
    DIR *dir = opendir(functions);
    for (struct dirent *e = dir != NULL ? readdir(dir) : NULL; e != NULL; e = readdir(dir))
        if (sv_starts_with(sv(e->d_name), SV(BUILD_TEMPORARY)))
            builder_remove_tree(arena_printf(&a, "%s/%s", functions, e->d_name).ptr);
    if (dir != NULL) (void)closedir(dir);
    arena_release(&a);
}

/* Not below DIR, which only its owner can pass: as root another user builds. Its name says whose it is, so
 * that the next platform on DIR finds it, and nobody else's. */
static char *folder_of(const struct gateway *g)
{
    char hex[SHA256_HEX + 1];
    const char *temp = getenv("TMPDIR");
    if (temp == NULL || temp[0] != '/') temp = "/tmp";
    sha256_hex(sv(g->cfg.dir), hex);
    size_t size = strlen(temp) + sizeof("/balm-build-") + SHA256_HEX;
    char *path = mem_alloc(size);
    (void)snprintf(path, size, "%s/balm-build-%.16s", temp, hex);
    return path;
}

/* Anybody can make a folder in /tmp: one that was there after we removed it is somebody else's. */
static enum status make_folders(const struct builder *b, struct error *err)
{
    struct arena a = {0};
    enum status s = dir_make(arena_printf(&a, "%s/built", b->gateway->cfg.dir).ptr, 0700, err);
    arena_release(&a);
    if (s == STATUS_OK && mkdir(b->folder, 0711) != 0)
        s = error_set(err, status_from_errno(errno), "make %s: %s", b->folder, strerror(errno));
    return s;
}

enum status builder_new(struct gateway *g, const char *secret_file, struct builder **ret_builder,
                        struct error *err)
{
    struct strview secret;
    *ret_builder = NULL;
    if (secret_file == NULL) return STATUS_OK;
    enum status s = read_secret(secret_file, &secret, err);
    if (s != STATUS_OK) return error_prefix(err, s, "--builder-secret");
    struct builder *b = mem_zalloc(1, sizeof(*b));
    *b = (struct builder){.gateway = g, .secret = secret, .folder = folder_of(g)};
    fiber_event_init(&b->ended);
    remove_left_over(b);
    *ret_builder = b;
    s = make_folders(b, err);
    if (s == STATUS_OK)
        log_info("gateway", "functions can be built here", LOG_STR("folder", g->cfg.functions_dir));
    return s;
}

void builder_free(struct builder *b)
{
    if (b == NULL) return;
    builder_remove_tree(b->folder);
    free(b->folder);
    mem_wipe((char *)(uintptr_t)b->secret.ptr, b->secret.len);
    free((char *)(uintptr_t)b->secret.ptr);
    free(b);
}
