#include "gateway/gateway_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"
#include "log/log.h"

#define SECRET_MAX 4096

static struct strview heap_copy(struct strview s)
{
    return sv_n(sv_heap_copy(s), s.len);
}

static void wipe(struct strview *s)
{
    mem_wipe((char *)(uintptr_t)s->ptr, s->len);
    free((char *)(uintptr_t)s->ptr);
    *s = sv(NULL);
}

/* One of root's that we may not change is taken as it is: root has decided so. */
static enum status tighten(int fd, const char *path, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return error_set(err, status_from_errno(errno), "look at %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return STATUS_OK;
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return error_set(err, STATUS_PERMISSION_DENIED,
                         "%s belongs to user %u: a secret must belong to root or to the platform's own user",
                         path, (unsigned)st.st_uid);
    if ((st.st_mode & 07177) == 0) return STATUS_OK;
    bool is_ours = st.st_uid == geteuid();
    if (is_ours && fchmod(fd, 0600) != 0)
        return error_set(err, status_from_errno(errno), "make %s private: %s", path, strerror(errno));
    char mode[8];
    (void)snprintf(mode, sizeof(mode), "%04o", (unsigned)(st.st_mode & 07777));
    log_warn("gateway",
             is_ours ? "a secret could be read by others: its mode is 0600 now"
                     : "a secret can be read by others",
             LOG_STR("file", path), LOG_STR("mode", mode));
    return STATUS_OK;
}

enum status secret_file_check(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) return STATUS_OK;
    if (fd < 0) return error_set(err, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    enum status s = tighten(fd, path, err);
    (void)close(fd);
    return s;
}

/* All of them, whoever reads them later. */
static enum status check_folder(struct arena *a, const char *folder, struct error *err)
{
    enum status s = STATUS_OK;
    DIR *dir = opendir(folder);
    if (dir == NULL) return error_set(err, status_from_errno(errno), "open %s: %s", folder, strerror(errno));
    for (struct dirent *e = readdir(dir); e != NULL && s == STATUS_OK; e = readdir(dir))
        if (e->d_type != DT_DIR) s = secret_file_check(arena_printf(a, "%s/%s", folder, e->d_name).ptr, err);
    (void)closedir(dir);
    return s;
}

/* Content of DIR/secrets/NAME, made from `n_random` bytes in hex (or `fixed`) where it is missing. */
static enum status load(struct arena *a, const char *dir, const char *name, const char *fixed,
                        size_t n_random, struct strview *ret_secret, bool *ret_is_new, struct error *err)
{
    const char *path = arena_printf(a, "%s/secrets/%s", dir, name).ptr;
    struct strview content;
    enum status s = file_read(a, path, SECRET_MAX, &content, err);
    if (s == STATUS_NOT_FOUND) {
        uint8_t bytes[64];
        char hex[sizeof(bytes) * 2 + 1];
        random_bytes(bytes, n_random);
        hex_encode(bytes, n_random, hex);
        content = fixed != NULL ? sv(fixed) : arena_copy(a, sv(hex));
        mem_wipe(bytes, sizeof(bytes));
        mem_wipe(hex, sizeof(hex));
        *ret_is_new = true;
        s = file_write_atomic(path, content, 0600, err);
    }
    if (s != STATUS_OK) return s;
    content = sv_trim(content);
    if (content.len == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s is empty: delete it to have a new one made", path);
    *ret_secret = heap_copy(content);
    mem_wipe((char *)(uintptr_t)content.ptr, fixed != NULL ? 0 : content.len);
    return STATUS_OK;
}

enum status gateway_secrets_load(const char *dir, struct gateway_secrets *ret_secrets, bool *ret_is_new,
                                 struct error *err)
{
    struct arena a = {0};
    struct gateway_secrets *g = ret_secrets;
    bool is_login_new = false, ignored = false;
    enum status s = dir_make(arena_printf(&a, "%s/secrets", dir).ptr, 0700, err);
    if (s == STATUS_OK) s = dir_make(arena_printf(&a, "%s/secrets/functions", dir).ptr, 0700, err);
    if (s == STATUS_OK) s = check_folder(&a, arena_printf(&a, "%s/secrets", dir).ptr, err);
    if (s == STATUS_OK) s = load(&a, dir, "basic-auth-user", "admin", 0, &g->user, &ignored, err);
    if (s == STATUS_OK) s = load(&a, dir, "basic-auth-password", NULL, 24, &g->password, &is_login_new, err);
    if (s == STATUS_OK) s = load(&a, dir, "webhook-token", NULL, 24, &g->token, &ignored, err);
    if (s == STATUS_OK) s = load(&a, dir, "invocation-key", NULL, 32, &g->invocation_key, &ignored, err);
    *ret_is_new = is_login_new;
    arena_release(&a);
    return s;
}

void gateway_secrets_release(struct gateway_secrets *s)
{
    wipe(&s->user);
    wipe(&s->password);
    wipe(&s->token);
    wipe(&s->invocation_key);
}

static bool take_scheme(struct strview header, struct strview scheme, struct strview *ret_rest)
{
    if (header.len <= scheme.len || !sv_eq_nocase(sv_sub(header, 0, scheme.len), scheme)) return false;
    *ret_rest = sv_trim(sv_sub(header, scheme.len, header.len));
    return true;
}

bool gateway_secrets_check_basic(const struct gateway_secrets *s, struct strview header)
{
    struct strview encoded;
    unsigned char login[SECRET_MAX * 2];
    if (!take_scheme(header, SV("Basic "), &encoded) || encoded.len == 0 || encoded.len > SECRET_MAX ||
        encoded.len % 4 != 0)
        return false;
    int n = EVP_DecodeBlock(login, (const unsigned char *)encoded.ptr, (int)encoded.len);
    if (n < 0) return false;
    for (size_t i = encoded.len; i > 0 && encoded.ptr[i - 1] == '=' && n > 0; i--)
        n--;
    struct strview text = sv_n((char *)login, (size_t)n);
    size_t colon = sv_find(text, ':');
    /* Both are compared whatever the first says, so that the time tells nothing about the user's name. */
    bool is_user = sv_eq_constant_time(sv_sub(text, 0, colon), s->user);
    bool is_password = sv_eq_constant_time(sv_sub(text, colon + 1, text.len), s->password);
    mem_wipe(login, sizeof(login));
    return colon < (size_t)n && (is_user & is_password);
}

bool gateway_secrets_check_bearer(const struct gateway_secrets *s, struct strview header)
{
    struct strview token;
    return take_scheme(header, SV("Bearer "), &token) && sv_eq_constant_time(token, s->token);
}
