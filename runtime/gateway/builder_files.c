/* What a build is made of: the archive, the folder it is unpacked in, and the file or folder that comes out.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "config/quote.h"
#include "config/yaml.h"
#include "gateway/builder.h"
#include "gateway/builder_tar.h"

#define CONFIG_ENTRY "com.openfaas.docker.config"
#define CONTEXT      "context/"
#define IMAGE_MAX    512
#define WALK_FDS     16

static enum status failed(struct error *err, const char *what, const char *path)
{
    int errnum = errno;
    return error_set(err, status_from_errno(errnum), "%s %s: %s", what, path, strerror(errnum));
}

static int on_remove(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    (void)remove(path);
    return 0;
}

void builder_remove_tree(const char *path)
{
    (void)nftw(path, on_remove, WALK_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void build_remove(struct build *b)
{
    if (b->folder != NULL) builder_remove_tree(b->folder);
}

/* ---- unpacking ---- */

static uid_t build_user(void)
{
    return geteuid() == 0 ? BUILD_UID : geteuid();
}

static enum status write_file(const char *path, const struct tar_entry *e, bool is_for_build,
                              struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return failed(err, "make", path);
    enum status s = STATUS_OK;
    struct strview rest = e->content;
    while (rest.len > 0 && s == STATUS_OK) {
        ssize_t n = write(fd, rest.ptr, rest.len);
        if (n < 0 && errno != EINTR) s = failed(err, "write", path);
        if (n > 0) rest = sv_sub(rest, (size_t)n, rest.len);
    }
    if (s == STATUS_OK && fchmod(fd, e->is_executable ? 0755 : 0644) != 0) s = failed(err, "write", path);
    if (s == STATUS_OK && is_for_build && fchown(fd, build_user(), (gid_t)-1) != 0)
        s = failed(err, "hand over", path);
    if (close(fd) != 0 && s == STATUS_OK) s = failed(err, "write", path);
    return s;
}

static enum status make_folder(const char *path, bool is_for_build, struct error *err)
{
    if (mkdir(path, 0755) != 0 || chmod(path, 0755) != 0) return failed(err, "make", path);
    if (is_for_build && chown(path, build_user(), (gid_t)-1) != 0) return failed(err, "hand over", path);
    return STATUS_OK;
}

/* What is below context/, as `folder`. The names lead downwards, no link is there, and nobody else writes in
 * it yet. */
static enum status unpack_into(const struct build *b, const char *folder, bool is_for_build,
                               struct error *err)
{
    struct tar_reader t;
    struct tar_entry e;
    struct arena a = {0};
    tar_reader_init(&t, b->archive);
    enum status s = make_folder(folder, is_for_build, err);
    while (s == STATUS_OK && (s = tar_next(&t, &a, &e, err)) == STATUS_OK) {
        if (!sv_starts_with(e.name, SV(CONTEXT))) continue;
        struct strview name = sv_sub(e.name, sizeof(CONTEXT) - 1, e.name.len);
        const char *path = arena_printf(&a, "%s/%.*s", folder, SV_ARG(name)).ptr;
        s = e.is_folder ? make_folder(path, is_for_build, err) : write_file(path, &e, is_for_build, err);
        if (s == STATUS_ALREADY_EXISTS || s == STATUS_NOT_FOUND) /* twice, or before its folder */
            s = error_set(err, STATUS_INVALID_ARGUMENT, "the archive's order of names is broken: %s",
                          err->message);
    }
    arena_release(&a);
    return s == STATUS_NOT_FOUND ? STATUS_OK : s;
}

/* ---- what is wanted ---- */

/* As an image's name is read, and safe as a file's. */
static enum status check_image(struct build *b, struct error *err)
{
    struct strview name;
    char shown[QUOTE_MAX];
    enum status s = deployment_image_name(b->image, &name, err);
    if (s != STATUS_OK) return s;
    bool is_fine = name.len <= FUNCTION_NAME_MAX && name.ptr[0] != '-';
    for (size_t i = 0; i < name.len && is_fine; i++) {
        char c = name.ptr[i];
        is_fine = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    }
    b->name = arena_cstr(b->arena, name);
    if (is_fine) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "image '%s': its last part must be of lower-case letters, digits, '-', '_' and '.'",
                     quote_text(b->image, shown));
}

static enum status read_config(struct build *b, struct strview text, struct error *err)
{
    json_t *config = NULL;
    enum status s = json_parse(text, 0, &config, err);
    if (s != STATUS_OK) return error_prefix(err, s, CONFIG_ENTRY);
    struct strview image = json_get_text(config, "image");
    b->image = arena_copy(b->arena, sv_sub(image, 0, IMAGE_MAX)); /* it stands in every line of the answer */
    json_release(config);
    return b->image.len > 0 ? STATUS_OK
                            : error_set(err, STATUS_INVALID_ARGUMENT, CONFIG_ENTRY ": no image is named");
}

/* The whole archive is looked at before anything is written. */
static enum status look_through(struct build *b, bool *ret_has_makefile, bool *ret_has_dockerfile,
                                struct error *err)
{
    struct tar_reader t;
    struct tar_entry e;
    enum status s;
    tar_reader_init(&t, b->archive);
    while ((s = tar_next(&t, b->arena, &e, err)) == STATUS_OK) {
        if (sv_eq(e.name, SV(CONTEXT "Makefile"))) *ret_has_makefile = true;
        if (sv_eq(e.name, SV(CONTEXT "Dockerfile"))) *ret_has_dockerfile = true;
        if (sv_eq(e.name, SV(CONTEXT "function/test"))) b->has_test = e.is_folder;
        bool is_config = sv_eq(e.name, SV(CONFIG_ENTRY));
        if (is_config)
            s = read_config(b, e.content, err);
        else if (!sv_eq(e.name, SV("context")) && !sv_starts_with(e.name, SV(CONTEXT)))
            s = error_set(err, STATUS_INVALID_ARGUMENT,
                          "the archive has more than a context: build secrets are not taken here");
        if (s != STATUS_OK) return s;
    }
    if (s != STATUS_NOT_FOUND) return s;
    return b->image.len > 0 ? check_image(b, err)
                            : error_set(err, STATUS_INVALID_ARGUMENT, "the archive has no " CONFIG_ENTRY);
}

/* A member of a YAML file of the context; empty: it has none. */
static enum status yaml_member(struct build *b, const char *file, struct strview member,
                               struct strview *ret_text, struct error *err)
{
    struct yaml_document doc;
    enum status s = yaml_read(b->arena, arena_printf(b->arena, "%s/%s", b->context, file).ptr, &doc, err);
    const struct yaml_node *node = s == STATUS_OK ? yaml_get(doc.root, member) : NULL;
    *ret_text = node != NULL && node->type == YAML_SCALAR ? node->text : sv(NULL);
    return s == STATUS_OK ? s : error_set(err, STATUS_INVALID_ARGUMENT, "%s cannot be read", file);
}

/* The template's Makefile calls what it makes as bot.yaml calls the function. */
static enum status find_made(struct build *b, struct error *err)
{
    struct strview name;
    enum status s = yaml_member(b, "function/bot.yaml", SV("name"), &name, err);
    if (s != STATUS_OK) return s;
    if (name.len == 0 || name.ptr[0] == '.' || sv_find(name, '/') < name.len)
        return error_set(err, STATUS_INVALID_ARGUMENT, "function/bot.yaml says no name");
    b->made = arena_printf(b->arena, "%s/out/%.*s", b->folder, SV_ARG(name)).ptr;
    return STATUS_OK;
}

static enum status check_program(struct build *b, bool has_dockerfile, struct error *err)
{
    struct strview process = {0};
    if (has_dockerfile)
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "this template is built by its Dockerfile, which needs a container engine; here those with a "
            "Makefile (c-balm) are built, and those that need no build (shell-balm, python3-balm)");
    enum status s = yaml_member(b, "template.yml", SV("fprocess"), &process, err);
    if (s != STATUS_OK || process.len > 0) return s;
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "the template has no Makefile, and its template.yml no fprocess");
}

static const char *place_of(const struct build *b)
{
    return arena_printf(b->arena, "%s/%s", b->builder->gateway->cfg.functions_dir, b->name).ptr;
}

static const char *mark_of(const struct build *b)
{
    return arena_printf(b->arena, "%s/built/%s", b->builder->gateway->cfg.dir, b->name).ptr;
}

/* Who may build may not put his own in the place of what came with balm, or of what somebody put there. */
static enum status check_place(const struct build *b, struct error *err)
{
    struct stat st;
    if (lstat(place_of(b), &st) != 0 || access(mark_of(b), F_OK) == 0) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "%s was not built here and is not replaced: choose another image name", place_of(b));
}

enum status build_unpack(struct build *b, struct error *err)
{
    bool has_makefile = false, has_dockerfile = false;
    enum status s = look_through(b, &has_makefile, &has_dockerfile, err);
    if (s == STATUS_OK) s = check_place(b, err);
    if (s != STATUS_OK) return s;
    b->folder = arena_printf(b->arena, "%s/%u", b->builder->folder, ++b->builder->serial).ptr;
    b->context = arena_printf(b->arena, "%s/context", b->folder).ptr;
    s = make_folder(b->folder, true, err);
    if (s == STATUS_OK) s = unpack_into(b, b->context, true, err);
    if (s == STATUS_OK) s = has_makefile ? find_made(b, err) : check_program(b, has_dockerfile, err);
    return s;
}

/* ---- its place ---- */

/* Its maker may have made anything in its place: a link to a file that only we may read, a pipe without end.
 */
static enum status open_made(const struct build *b, int *ret_fd, off_t *ret_size, struct error *err)
{
    struct stat st;
    int fd = open(b->made, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "make has made no %s", strrchr(b->made, '/') + 1);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != build_user() ||
        st.st_size > BUILD_RESULT_MAX) {
        (void)close(fd);
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "what make has made is no file of its own of at most %d MiB",
                         BUILD_RESULT_MAX >> 20);
    }
    *ret_fd = fd;
    *ret_size = st.st_size;
    return STATUS_OK;
}

static enum status copy_all(int to_fd, int from_fd, off_t left)
{
    while (left > 0) {
        ssize_t n = sendfile(to_fd, from_fd, NULL, (size_t)left);
        if (n == 0) errno = EIO; /* it has become shorter */
        if (n <= 0) return status_from_errno(errno);
        left -= n;
    }
    return fchmod(to_fd, 0755) == 0 && fsync(to_fd) == 0 ? STATUS_OK : status_from_errno(errno);
}

static enum status copy_made(const struct build *b, const char *to, struct error *err)
{
    int from_fd = -1;
    off_t size = 0;
    enum status s = open_made(b, &from_fd, &size, err);
    if (s != STATUS_OK) return s;
    int to_fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    if (to_fd < 0 || copy_all(to_fd, from_fd, size) != STATUS_OK) s = failed(err, "write", to);
    (void)close(from_fd);
    if (to_fd >= 0) (void)close(to_fd); /* it is synced */
    return s;
}

/* Every file of it. */
static enum status sync_folder(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum status s = fd >= 0 && syncfs(fd) == 0 ? STATUS_OK : failed(err, "sync", path);
    if (fd >= 0) (void)close(fd);
    return s;
}

/* In one step, whatever has the name now; that is `temporary` then. */
static enum status swap(const char *temporary, const char *place, struct error *err)
{
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, place, RENAME_NOREPLACE) != 0 &&
        (errno != EEXIST || renameat2(AT_FDCWD, temporary, AT_FDCWD, place, RENAME_EXCHANGE) != 0))
        return failed(err, "put in its place", place);
    return file_sync_name(place, err);
}

enum status build_install(struct build *b, struct error *err)
{
    const char *place = place_of(b);
    const char *temporary = arena_printf(b->arena, "%s/" BUILD_TEMPORARY "%d-%s",
                                         b->builder->gateway->cfg.functions_dir, (int)getpid(), b->name)
                                .ptr;
    builder_remove_tree(temporary);
    enum status s = b->made != NULL ? copy_made(b, temporary, err) : unpack_into(b, temporary, false, err);
    if (s == STATUS_OK && b->made == NULL) s = sync_folder(temporary, err);
    if (s == STATUS_OK) s = check_place(b, err);
    if (s == STATUS_OK) s = file_write_atomic(mark_of(b), b->image, 0600, err);
    if (s == STATUS_OK) s = swap(temporary, place, err);
    builder_remove_tree(temporary);
    return s;
}
