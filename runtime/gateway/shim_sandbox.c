#include "gateway/shim_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAPABILITY_WORDS 2

/* ---- descriptors ---- */

/* CLOSE_RANGE_CLOEXEC came with 5.11. What exec would keep is what counts. */
static void close_from(int first)
{
    if (syscall(SYS_close_range, (unsigned)first, ~0U, 1U << 2) == 0) return;
    struct rlimit limit;
    int end =
        getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max < 1 << 20 ? (int)limit.rlim_max : 1 << 20;
    for (int fd = first; fd < end; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* ---- user ---- */

/* What cleaning folders of others takes: the way into them, removing from sticky ones (/tmp), and the
 * question whether somebody has a file open (a lease). */
static uint64_t capabilities_over_files(void)
{
    return UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_FOWNER | UINT64_C(1) << CAP_LEASE;
}

static bool removes_files(const struct sandbox *sandbox)
{
    for (size_t i = 0; i < sandbox->n_paths; i++)
        if (sandbox->paths[i].access == 'd') return true;
    return false;
}

static uint64_t own_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[CAPABILITY_WORDS] = {0};
    if (syscall(SYS_capget, &header, data) != 0) return 0;
    return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

static int set_capabilities(uint64_t set)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[CAPABILITY_WORDS];
    for (int i = 0; i < CAPABILITY_WORDS; i++) {
        uint32_t word = (uint32_t)(set >> (32 * i));
        data[i] = (struct __user_cap_data_struct){.effective = word, .permitted = word, .inheritable = word};
    }
    return (int)syscall(SYS_capset, &header, data);
}

/* Not all who may set users may do this. To those it is no loss: no_new_privs lets nobody gain any by exec.
 */
static void drop_bounds(uint64_t kept)
{
    for (int i = 0; i <= 63; i++)
        if ((kept >> i & 1) == 0 && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) != 0) return;
}

static int become_user(unsigned uid)
{
    if (setgroups(0, NULL) != 0) return shim_fail("give up the groups");
    if (setresgid(uid, uid, uid) != 0) return shim_fail("take a group of its own");
    if (setresuid(uid, uid, uid) != 0) return shim_fail("take a user of its own");
    return 0;
}

/* A user of its own has no capability; one that removes files keeps those three, also through exec. */
static int give_up_rights(const struct sandbox *sandbox)
{
    uint64_t kept = 0;
    if (removes_files(sandbox) && geteuid() == 0) kept = capabilities_over_files() & own_capabilities();
    drop_bounds(kept);
    if (kept != 0 && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return shim_fail("keep capabilities");
    if (sandbox->uid != 0) {
        int code = become_user(sandbox->uid);
        if (code != 0) return code;
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (set_capabilities(kept) != 0) return shim_fail("give up the capabilities");
    for (int i = 0; i <= 63; i++)
        if ((kept >> i & 1) != 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) != 0)
            return shim_fail("keep a capability through exec");
    return 0;
}

/* ---- files ---- */

/* Debian's header has the rights of ABI 2. */
#define FS_TRUNCATE                (UINT64_C(1) << 14) /* ABI 3 */
#define FS_IOCTL_DEV               (UINT64_C(1) << 15) /* ABI 5 */
#define NET_BIND_TCP               (UINT64_C(1) << 0)  /* ABI 4 */
#define SCOPE_ABSTRACT_UNIX_SOCKET (UINT64_C(1) << 0)  /* ABI 6 */
#define SCOPE_SIGNAL               (UINT64_C(1) << 1)  /* ABI 6 */

struct ruleset_attr { /* the kernel takes as much of it as it knows, if the rest is zero */
    uint64_t handled_fs, handled_net, scoped;
};

#define FS_READ   (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_RUN    (FS_READ | LANDLOCK_ACCESS_FS_EXECUTE)
#define FS_REMOVE (FS_READ | LANDLOCK_ACCESS_FS_REMOVE_FILE)
#define FS_WRITE                                                                                             \
    (FS_REMOVE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                             \
     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |              \
     LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER | FS_TRUNCATE)
#define FS_DEVICE (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE)
#define FS_OF_FILES                                                                                          \
    (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |             \
     FS_TRUNCATE | FS_IOCTL_DEV)

/* What every program of a Linux system expects to be there. Resolvers' files are links to below /run. What is
 * kept by its modes is not for a function whose capabilities pass over modes: it would read /etc/shadow. */
static const struct {
    const char *path;
    uint64_t access;
    bool is_kept_by_modes;
} system_paths[] = {
    {"/usr", FS_RUN, false},
    {"/bin", FS_RUN, false},
    {"/sbin", FS_RUN, false},
    {"/lib", FS_RUN, false},
    {"/lib32", FS_RUN, false},
    {"/lib64", FS_RUN, false},
    {"/opt", FS_RUN, true},
    {"/nix", FS_RUN, true},
    {"/etc", FS_READ, true},
    {"/etc/ld.so.cache", FS_READ, false},
    {"/etc/localtime", FS_READ, false},
    {"/proc", FS_READ, true},
    {"/proc/self", FS_READ, false},
    {"/sys", FS_READ, true},
    {"/run/systemd/resolve", FS_READ, true},
    {"/run/resolvconf", FS_READ, true},
    {"/run/NetworkManager", FS_READ, true},
    {"/dev/null", FS_DEVICE, false},
    {"/dev/zero", FS_DEVICE, false},
    {"/dev/full", FS_DEVICE, false},
    {"/dev/random", LANDLOCK_ACCESS_FS_READ_FILE, false},
    {"/dev/urandom", LANDLOCK_ACCESS_FS_READ_FILE, false},
};

static uint64_t handled_by(int abi)
{
    uint64_t all =
        FS_RUN | FS_WRITE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK | FS_IOCTL_DEV;
    if (abi < 2) all &= ~(uint64_t)LANDLOCK_ACCESS_FS_REFER;
    if (abi < 3) all &= ~FS_TRUNCATE;
    if (abi < 5) all &= ~FS_IOCTL_DEV;
    return all;
}

static int allow(int ruleset, int fd, uint64_t access)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return -1;
    if (!S_ISDIR(st.st_mode)) access &= FS_OF_FILES;
    struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
    return (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

/* resolve: of openat2, which is older than Landlock. */
static int allow_path(int ruleset, const char *path, uint64_t resolve, uint64_t access)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = resolve};
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
    if (fd < 0) return -1;
    int rc = allow(ruleset, fd, access), failed = errno;
    (void)close(fd);
    errno = failed;
    return rc;
}

static int allow_system(int ruleset, uint64_t handled, bool passes_over_modes)
{
    for (size_t i = 0; i < sizeof(system_paths) / sizeof(system_paths[0]); i++) {
        if (system_paths[i].is_kept_by_modes && passes_over_modes) continue;
        if (allow_path(ruleset, system_paths[i].path, 0, system_paths[i].access & handled) != 0 &&
            errno != ENOENT && errno != ENOTDIR && errno != EACCES)
            return shim_fail(system_paths[i].path);
    }
    return 0;
}

/* The platform has looked where these lead; whoever may write on the way must not lead them elsewhere since.
 * A folder to be cleaned may be missing: the bot says so when it is asked. */
static int allow_given(int ruleset, uint64_t handled, const struct sandbox *sandbox)
{
    for (size_t i = 0; i < sandbox->n_paths; i++) {
        const struct sandbox_path *p = &sandbox->paths[i];
        uint64_t access = p->access == 'w' ? FS_WRITE : p->access == 'd' ? FS_REMOVE : FS_RUN;
        if (allow_path(ruleset, p->path, RESOLVE_NO_SYMLINKS, access & handled) != 0 &&
            (p->access != 'd' || errno != ENOENT))
            return shim_fail(p->path);
    }
    return 0;
}

/* The rules, by what is there and who we are before we become somebody else. */
static int make_ruleset(const struct sandbox *sandbox, int program_fd, int *ret_ruleset)
{
    int abi = sandbox->landlock_abi;
    struct ruleset_attr attr = {.handled_fs = handled_by(abi)};
    if (abi >= 4 && !sandbox->may_bind) attr.handled_net = NET_BIND_TCP;
    if (abi >= 6) attr.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
    size_t size = abi >= 6   ? sizeof(attr)
                  : abi >= 4 ? offsetof(struct ruleset_attr, scoped)
                             : sizeof(uint64_t);
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (ruleset < 0) return shim_fail("make a Landlock ruleset");
    int code = allow_system(ruleset, attr.handled_fs, removes_files(sandbox));
    if (code == 0) code = allow_given(ruleset, attr.handled_fs, sandbox);
    if (code == 0 && allow(ruleset, program_fd, FS_RUN & attr.handled_fs) != 0)
        code = shim_fail("allow the program to itself");
    *ret_ruleset = ruleset;
    return code;
}

/* ---- all of it ---- */

/* Better said here than by a program that does not find its own folder. */
static int check_reach(const struct sandbox *sandbox)
{
    for (size_t i = 0; i < sandbox->n_paths && sandbox->uid != 0; i++) {
        const struct sandbox_path *p = &sandbox->paths[i];
        if (p->access == 'd' || access(p->path, R_OK | (p->access == 'w' ? W_OK : 0)) == 0) continue;
        fprintf(stderr, "balm-shim: user %u, whom the function runs as, may not %s %s: %s\n", sandbox->uid,
                p->access == 'w' ? "write" : "read", p->path, strerror(errno));
        return 126;
    }
    return 0;
}

/* Of its user: all replicas of a function together, or whoever shares the platform's. A fork bomb ends there,
 * and its neighbours, who would wait for a place in the kernel's table, go on. */
static int limit_processes(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NPROC, &limit) != 0) return shim_fail("read the limit of processes");
    if (limit.rlim_max > SANDBOX_PROCESSES_MAX) limit.rlim_max = SANDBOX_PROCESSES_MAX;
    if (limit.rlim_cur > limit.rlim_max) limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NPROC, &limit) == 0 ? 0 : shim_fail("limit the number of processes");
}

static int enter(const struct sandbox *sandbox, int ruleset)
{
    /* A limit of 0 counts nothing where the kernel pipes a core to a program; 1 does. */
    const struct rlimit no_core = {1, 1};
    if (setrlimit(RLIMIT_CORE, &no_core) != 0 && errno != EPERM) /* it is 0 already */
        return shim_fail("forbid core files");
    int code = limit_processes();
    if (code == 0) code = give_up_rights(sandbox);
    if (code == 0) code = check_reach(sandbox);
    if (code != 0) return code;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return shim_fail("no_new_privs");
    if (ruleset >= 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
        return shim_fail("enter Landlock");
    if (sandbox->has_seccomp && sandbox_filter_calls(sandbox) != 0) return shim_fail("filter system calls");
    return 0;
}

int sandbox_enter(const struct sandbox *sandbox, const char *program, int first_fd, int *ret_program_fd)
{
    int ruleset = -1, code = 0, fd;
    close_from(first_fd);
    *ret_program_fd = fd = open(program, O_PATH | O_CLOEXEC);
    if (fd < 0) return shim_fail_exec(program);
    if (sandbox->landlock_abi > 0) code = make_ruleset(sandbox, fd, &ruleset);
    return code == 0 ? enter(sandbox, ruleset) : code;
}
