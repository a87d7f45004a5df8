#include "gateway/isolation.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "gateway/gateway_impl.h"
#include "log/log.h"

#define UID_MAP_MAX   (16 * 1024)
#define USER_FILE_MAX 32
#define USERS         "users" /* in DIR */
#define TEMP_LINK     "temp"  /* in DIR/run: where the TMPDIRs of this platform's life are */
#define UID_LAST      UINT32_C(4294967293)

/* ---- what this machine offers ---- */

static void find_landlock(struct isolation *i)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1U /* LANDLOCK_CREATE_RULESET_VERSION */);
    i->landlock_abi = abi > 0 ? (int)abi : 0;
    if (abi <= 0)
        (void)snprintf(i->no_landlock_why, sizeof(i->no_landlock_why), "%s",
                       errno == ENOSYS       ? "this kernel was built without it"
                       : errno == EOPNOTSUPP ? "it is switched off in this kernel (lsm=)"
                                             : "it may not be used here");
}

static bool find_seccomp(void)
{
    unsigned action = SECCOMP_RET_ERRNO;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

/* To become another user, to hand files over to it, and to end its processes. */
static bool has_capabilities(void)
{
    static const unsigned needed[] = {CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_KILL, CAP_DAC_OVERRIDE};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    if (syscall(SYS_capget, &header, data) != 0) return false;
    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        if ((data[needed[i] / 32].effective >> (needed[i] % 32) & 1) == 0) return false;
    return true;
}

/* Cuts the first word off. */
static bool next_number(struct strview *io_line, uint64_t *ret_value)
{
    struct strview rest = sv_trim(*io_line), word = sv_sub(rest, 0, sv_find(rest, ' '));
    *io_line = sv_sub(rest, word.len, rest.len);
    return sv_parse_u64(word, ret_value) == STATUS_OK;
}

/* In a user namespace not every number is somebody. */
static bool are_mapped(const char *map, unsigned first, unsigned last)
{
    struct arena a = {0};
    struct strview text, line;
    bool is_mapped = file_read(&a, map, UID_MAP_MAX, &text, NULL) != STATUS_OK; /* no namespaces */
    while (!is_mapped && sv_next(&text, '\n', &line)) {
        uint64_t inside = 0, outside = 0, n = 0;
        bool is_range = next_number(&line, &inside) && next_number(&line, &outside) && next_number(&line, &n);
        is_mapped = is_range && first >= inside && last < inside + n;
    }
    arena_release(&a);
    return is_mapped;
}

static enum status parse_uids(const char *text, unsigned *ret_first, unsigned *ret_last, struct error *err)
{
    struct strview rest = sv(text), first_text;
    uint64_t first = 0, last = 0;
    *ret_first = *ret_last = 0;
    if (sv_eq(rest, SV("none"))) return STATUS_OK;
    (void)sv_next(&rest, '-', &first_text);
    if (sv_parse_u64(first_text, &first) != STATUS_OK || sv_parse_u64(rest, &last) != STATUS_OK ||
        first == 0 || last < first || last > UID_LAST || last - first >= 1000000)
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "function-uids '%s': FIRST-LAST, at most 1000000 of them and none of them 0, or none", text);
    *ret_first = (unsigned)first;
    *ret_last = (unsigned)last;
    return STATUS_OK;
}

static const char *why_no_users(unsigned first, unsigned last)
{
    if (first == 0) return "function-uids is none";
    if (geteuid() != 0) return "the platform does not run as root";
    if (!has_capabilities())
        return "the platform is root without CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_KILL or CAP_DAC_OVERRIDE";
    if (!are_mapped("/proc/self/uid_map", first, last) || !are_mapped("/proc/self/gid_map", first, last))
        return "this user namespace does not have the range of function-uids";
    return NULL;
}

static enum status find_users(struct isolation *i, const char *uids, struct error *err)
{
    enum status s = parse_uids(uids, &i->first_uid, &i->last_uid, err);
    if (s != STATUS_OK) return s;
    const char *why = why_no_users(i->first_uid, i->last_uid);
    if (why == NULL) return STATUS_OK;
    i->first_uid = i->last_uid = 0;
    (void)snprintf(i->no_uid_why, sizeof(i->no_uid_why), "%s", why);
    return STATUS_OK;
}

/* ---- users ---- */

static void load_user(struct isolation *i, const char *folder, const char *name)
{
    struct arena a = {0};
    struct strview text;
    uint64_t uid;
    if (file_read(&a, arena_printf(&a, "%s/%s", folder, name).ptr, USER_FILE_MAX, &text, NULL) == STATUS_OK &&
        sv_parse_u64(sv_trim(text), &uid) == STATUS_OK && uid <= UID_LAST)
        (void)json_object_set_new(i->users, name, json_integer((json_int_t)uid));
    arena_release(&a);
}

static enum status load_users(struct gateway *g, struct error *err)
{
    struct arena a = {0};
    const char *folder = arena_printf(&a, "%s/" USERS, g->cfg.dir).ptr;
    enum status s = dir_make(folder, 0700, err);
    DIR *dir = s == STATUS_OK ? opendir(folder) : NULL;
    if (s == STATUS_OK && dir == NULL)
        s = error_set(err, status_from_errno(errno), "open %s: %s", folder, strerror(errno));
    for (struct dirent *e = dir != NULL ? readdir(dir) : NULL; e != NULL; e = readdir(dir))
        if (e->d_name[0] != '.') load_user(&g->isolation, folder, e->d_name);
    if (dir != NULL) (void)closedir(dir);
    arena_release(&a);
    return s;
}

/* Without a wait for the disk: lost, it is chosen the same again, but for a name that had to make way. */
static enum status note_user(const struct gateway *g, struct arena *a, const char *name, unsigned uid,
                             struct error *err)
{
    const char *path = arena_printf(a, "%s/" USERS "/%s", g->cfg.dir, name).ptr;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool is_noted = fd >= 0 && dprintf(fd, "%u\n", uid) > 0;
    enum status s = is_noted ? STATUS_OK
                             : error_set(err, fd < 0 ? status_from_errno(errno) : STATUS_RESOURCE_EXHAUSTED,
                                         "note %s: %s", path, strerror(errno));
    if (fd >= 0) (void)close(fd);
    return s;
}

static const char *owner_of(const struct isolation *i, unsigned uid)
{
    const char *name;
    json_t *value;
    json_object_foreach(i->users, name, value) if (json_integer_value(value) == uid) return name;
    return NULL;
}

static void forget_user(struct gateway *g, const char *name)
{
    struct arena a = {0};
    (void)unlink(arena_printf(&a, "%s/" USERS "/%s", g->cfg.dir, name).ptr);
    (void)json_object_del(g->isolation.users, name);
    arena_release(&a);
}

/* By the name, so that it is most likely the same also where the notes were lost. When all are somebody's,
 * one whose function is gone. */
static unsigned choose_user(struct gateway *g, struct strview name)
{
    struct isolation *i = &g->isolation;
    uint8_t digest[SHA256_BYTES];
    unsigned n = i->last_uid - i->first_uid + 1;
    sha256(name, digest);
    uint32_t start =
        ((uint32_t)digest[0] << 24 | (uint32_t)digest[1] << 16 | (uint32_t)digest[2] << 8 | digest[3]) % n;
    for (unsigned k = 0; k < n && json_object_size(i->users) < n; k++)
        if (owner_of(i, i->first_uid + (start + k) % n) == NULL) return i->first_uid + (start + k) % n;
    for (unsigned k = 0; k < n; k++) {
        const char *owner = owner_of(i, i->first_uid + (start + k) % n);
        if (owner != NULL && supervisor_find(g, sv(owner)) != NULL) continue;
        if (owner != NULL) forget_user(g, owner);
        return i->first_uid + (start + k) % n;
    }
    return 0;
}

static bool is_in_range(const struct isolation *i, json_int_t uid)
{
    return uid >= i->first_uid && uid <= i->last_uid;
}

enum status isolation_user(struct gateway *g, struct strview name, unsigned *ret_uid, struct error *err)
{
    struct isolation *i = &g->isolation;
    struct arena a = {0};
    const char *key = arena_cstr(&a, name);
    json_int_t known = json_integer_value(json_object_get(i->users, key));
    enum status s = STATUS_OK;
    *ret_uid = 0;
    if (i->first_uid == 0) goto out;
    if (!is_in_range(i, known)) {
        unsigned uid = choose_user(g, name);
        s = uid != 0 ? note_user(g, &a, key, uid, err)
                     : error_set(err, STATUS_RESOURCE_EXHAUSTED,
                                 "no user is left for '%s' in function-uids %u-%u: make the range larger",
                                 key, i->first_uid, i->last_uid);
        if (s != STATUS_OK) goto out;
        known = uid;
        (void)json_object_set_new(i->users, key, json_integer(known));
    }
    *ret_uid = (unsigned)known;
out:
    arena_release(&a);
    return s;
}

/* ---- folders ---- */

/* DIR may lie below a folder of root's alone: a tests', or one in /root. */
static enum status make_folder(struct gateway *g, struct error *err)
{
    struct isolation *i = &g->isolation;
    struct arena a = {0};
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX + 1];
    struct stat st;
    sha256(sv(g->cfg.dir), digest);
    hex_encode(digest, sizeof(digest), hex);
    const char *path = i->first_uid != 0 ? arena_printf(&a, "/run/balm-%.16s", hex).ptr
                                         : arena_printf(&a, "%s/run", g->cfg.dir).ptr;
    enum status s = STATUS_OK;
    if (i->first_uid != 0 && mkdir(path, 0711) != 0 && errno != EEXIST)
        s = error_set(err, status_from_errno(errno), "make %s: %s; or start with --function-uids none", path,
                      strerror(errno));
    else if (i->first_uid != 0 && (chmod(path, 0711) != 0 || lstat(path, &st) != 0 || !S_ISDIR(st.st_mode) ||
                                   st.st_uid != geteuid()))
        s = error_set(err, STATUS_PERMISSION_DENIED, "%s is no folder of the platform's", path);
    i->folder = mem_copy_text(path);
    const char *secrets = arena_printf(&a, "%s/secrets", path).ptr;
    if (s == STATUS_OK && i->first_uid != 0) isolation_remove_temp(secrets); /* of an earlier platform */
    if (s == STATUS_OK) s = dir_make(secrets, 0711, err);
    if (s == STATUS_OK && chmod(secrets, 0711) != 0)
        s = error_set(err, status_from_errno(errno), "open %s to functions: %s", secrets, strerror(errno));
    arena_release(&a);
    return s;
}

static bool is_ours(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

/* In a world-writable folder a name that is known beforehand is somebody else's. */
static enum status make_temp(struct gateway *g, struct error *err)
{
    const char *base = getenv("TMPDIR");
    char path[PATH_MAX], before[PATH_MAX];
    if (base == NULL || base[0] != '/') base = "/tmp";
    ssize_t n = readlinkat(g->run_dir_fd, TEMP_LINK, before, sizeof(before) - 1);
    if (n > 0) {
        before[n] = '\0';
        if (is_ours(before)) isolation_remove_temp(before);
    }
    (void)unlinkat(g->run_dir_fd, TEMP_LINK, 0);
    if (realpath(base, before) != NULL) base = before;
    (void)snprintf(path, sizeof(path), "%.*s/balm-XXXXXX", (int)sizeof(path) - 16, base);
    if (mkdtemp(path) == NULL)
        return error_set(err, status_from_errno(errno), "make %s: %s", path, strerror(errno));
    g->isolation.temp = mem_copy_text(path);
    if (chmod(path, 0711) != 0 || symlinkat(path, g->run_dir_fd, TEMP_LINK) != 0)
        return error_set(err, status_from_errno(errno), "note %s: %s", path, strerror(errno));
    return STATUS_OK;
}

/* ---- the whole ---- */

static void say(const struct isolation *i)
{
    struct arena a = {0};
    struct strview users = i->first_uid != 0
                               ? arena_printf(&a, "own ones of %u-%u", i->first_uid, i->last_uid)
                               : arena_printf(&a, "none of their own: %s", i->no_uid_why);
    struct strview landlock = i->landlock_abi > 0 ? arena_printf(&a, "ABI %d", i->landlock_abi)
                                                  : arena_printf(&a, "none: %s", i->no_landlock_why);
    bool is_whole = i->landlock_abi > 0 && i->has_seccomp && (i->first_uid != 0 || geteuid() != 0);
    log_write(is_whole ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "gateway", "functions are isolated",
              LOG_FIELDS(LOG_SV("users", users), LOG_SV("landlock", landlock),
                         LOG_STR("seccomp", i->has_seccomp ? "on" : "none: this kernel does not offer it")));
    arena_release(&a);
}

enum status isolation_init(struct gateway *g, struct error *err)
{
    struct isolation *i = &g->isolation;
    i->users = json_object();
    find_landlock(i);
    i->has_seccomp = find_seccomp();
    const char *uids = g->cfg.function_uids;
    enum status s = find_users(i, uids != NULL ? uids : "none", err);
    if (s == STATUS_OK) s = load_users(g, err);
    if (s == STATUS_OK) s = make_folder(g, err);
    if (s == STATUS_OK) s = make_temp(g, err);
    if (s == STATUS_OK) say(i);
    return s;
}

void isolation_release(struct gateway *g)
{
    struct isolation *i = &g->isolation;
    if (g->run_dir_fd >= 0) (void)unlinkat(g->run_dir_fd, TEMP_LINK, 0);
    if (i->temp != NULL) isolation_remove_temp(i->temp);
    if (i->first_uid != 0 && i->folder != NULL) isolation_remove_temp(i->folder);
    json_release(i->users);
    free((char *)(uintptr_t)i->folder);
    free(i->temp);
}

json_t *isolation_json(const struct isolation *i)
{
    bool has_own = i->first_uid != 0;
    json_t *json = json_pack("{s:b, s:i, s:b, s:b, s:b}", "ownUser", has_own, "landlock", i->landlock_abi,
                             "seccomp", i->has_seccomp, "noNewPrivileges", 1, "closedDescriptors", 1);
    if (has_own)
        (void)json_object_set_new(json, "uids", json_sprintf("%u-%u", i->first_uid, i->last_uid));
    else
        (void)json_object_set_new(json, "noOwnUser", json_string(i->no_uid_why));
    if (i->landlock_abi == 0) (void)json_object_set_new(json, "noLandlock", json_string(i->no_landlock_why));
    return json;
}
