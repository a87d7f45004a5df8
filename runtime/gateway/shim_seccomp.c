/* System calls that no function needs. Most of them want a capability that it does not have either; here they
 * end before the kernel's own code for them, where its holes are. A list of what is refused, not of what is
 * allowed: a function may be a program in any language, on a C library of next year. */
#include "gateway/shim_sandbox.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/ioprio.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
/* cppcheck-suppress preprocessorErrorDirective */
#error "the filter of system calls knows x86_64 and aarch64"
#endif

#define X32_BIT        0x40000000U /* x86_64: the numbers of a third ABI, which nobody uses */
#define FILTER_MAX     384
#define OPEN_TREE_ATTR 467 /* later than Debian's headers; newer calls have one number everywhere */
#define NAMESPACES                                                                                           \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |            \
     CLONE_NEWNET)

static const unsigned denied[] = {
    /* other processes */
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_pidfd_getfd,
    /* namespaces and mounts */
    SYS_unshare,
    SYS_setns,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    OPEN_TREE_ATTR,
    /* files past their folders */
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_fanotify_init,
    SYS_quotactl,
    SYS_quotactl_fd,
    /* where holes were found again and again */
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_personality,
    /* the machine */
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_syslog,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_vhangup,
    SYS_nfsservctl,
    SYS_lookup_dcookie,
#if defined(__x86_64__)
    SYS_iopl,
    SYS_ioperm,
    SYS_modify_ldt,
    SYS_create_module,
    SYS_uselib,
    SYS__sysctl,
#endif
};

/* Without a user of its own, these would change the platform and every other function: RLIMIT_CPU set to 0
 * kills who has it. Landlock knows none of them. Each names whom it changes; 0 is the caller. */
static const unsigned of_process[] = {
    SYS_prlimit64, SYS_sched_setaffinity, SYS_sched_setscheduler, SYS_sched_setattr, SYS_sched_setparam,
};
/* The same, and they ask for the kind of whom before it: also all of a user is one. */
static const struct {
    unsigned number, one_process;
} of_kind[] = {{SYS_setpriority, PRIO_PROCESS}, {SYS_ioprio_set, IOPRIO_WHO_PROCESS}};
/* Memory and queues that know users only. */
static const unsigned of_user[] = {
    SYS_shmget, SYS_shmat, SYS_shmctl,     SYS_msgget, SYS_msgsnd,  SYS_msgrcv,    SYS_msgctl,
    SYS_semget, SYS_semop, SYS_semtimedop, SYS_semctl, SYS_mq_open, SYS_mq_unlink,
};

struct filter {
    struct sock_filter code[FILTER_MAX];
    unsigned short n;
};

static void statement(struct filter *f, unsigned code, unsigned value)
{
    f->code[f->n++] = (struct sock_filter)BPF_STMT((uint16_t)code, value);
}

static void answer(struct filter *f, unsigned action, unsigned errnum)
{
    statement(f, BPF_RET | BPF_K, action | errnum);
}

/* The next `skipped` instructions are for value alone. */
static void unless_equal(struct filter *f, unsigned value, uint8_t skipped)
{
    f->code[f->n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skipped);
}

static void load(struct filter *f, size_t offset)
{
    statement(f, BPF_LD | BPF_W | BPF_ABS, (unsigned)offset);
}

/* The low half: all that the kernel itself looks at of those below. Both architectures are little-endian. */
static void load_argument(struct filter *f, unsigned i)
{
    load(f, offsetof(struct seccomp_data, args) + 8 * i);
}

static void refuse(struct filter *f, unsigned number, unsigned errnum)
{
    unless_equal(f, number, 1);
    answer(f, SECCOMP_RET_ERRNO, errnum);
}

/* A jump says how many instructions it leaves out, so each of these counts its own. */
static void refuse_families(struct filter *f, bool has_unix)
{
    unless_equal(f, SYS_socket, has_unix ? 8 : 6);
    load_argument(f, 0);
    const unsigned families[] = {AF_INET, AF_INET6, AF_UNIX};
    for (size_t i = 0; i < (has_unix ? 3 : 2); i++) {
        unless_equal(f, families[i], 1);
        answer(f, SECCOMP_RET_ALLOW, 0);
    }
    answer(f, SECCOMP_RET_ERRNO, EAFNOSUPPORT);
}

static void refuse_namespaces(struct filter *f)
{
    unless_equal(f, SYS_clone, 4);
    load_argument(f, 0);
    f->code[f->n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1);
    answer(f, SECCOMP_RET_ERRNO, EPERM);
    answer(f, SECCOMP_RET_ALLOW, 0);
}

/* Typing into the terminal that somebody started the platform in. */
static void refuse_typing(struct filter *f)
{
    unless_equal(f, SYS_ioctl, 6);
    load_argument(f, 1);
    refuse(f, TIOCSTI, EPERM);
    refuse(f, TIOCLINUX, EPERM);
    answer(f, SECCOMP_RET_ALLOW, 0);
}

static void refuse_of_process(struct filter *f, unsigned number)
{
    unless_equal(f, number, 4);
    load_argument(f, 0);
    unless_equal(f, 0, 1);
    answer(f, SECCOMP_RET_ALLOW, 0);
    answer(f, SECCOMP_RET_ERRNO, EPERM);
}

static void refuse_of_kind(struct filter *f, unsigned number, unsigned one_process)
{
    unless_equal(f, number, 6);
    load_argument(f, 0);
    unless_equal(f, one_process, 3);
    load_argument(f, 1);
    unless_equal(f, 0, 1);
    answer(f, SECCOMP_RET_ALLOW, 0);
    answer(f, SECCOMP_RET_ERRNO, EPERM);
}

static void refuse_what_users_share(struct filter *f)
{
    for (size_t i = 0; i < sizeof(of_process) / sizeof(of_process[0]); i++)
        refuse_of_process(f, of_process[i]);
    for (size_t i = 0; i < sizeof(of_kind) / sizeof(of_kind[0]); i++)
        refuse_of_kind(f, of_kind[i].number, of_kind[i].one_process);
    for (size_t i = 0; i < sizeof(of_user) / sizeof(of_user[0]); i++)
        refuse(f, of_user[i], EPERM);
}

int sandbox_filter_calls(const struct sandbox *sandbox)
{
    struct filter f = {.n = 0};
    load(&f, offsetof(struct seccomp_data, arch));
    f.code[f.n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    answer(&f, SECCOMP_RET_KILL_PROCESS, 0);
    load(&f, offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
    f.code[f.n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    answer(&f, SECCOMP_RET_KILL_PROCESS, 0);
#endif
    for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++)
        refuse(&f, denied[i], EPERM);
    if (!sandbox->may_trace) refuse(&f, SYS_ptrace, EPERM);
    refuse(&f, SYS_clone3, ENOSYS); /* its flags lie in memory; every C library goes back to clone */
    refuse_namespaces(&f);
    refuse_families(&f, sandbox->has_unix_sockets);
    refuse_typing(&f);
    if (sandbox->uid == 0) refuse_what_users_share(&f);
    answer(&f, SECCOMP_RET_ALLOW, 0);
    struct sock_fprog program = {.len = f.n, .filter = f.code};
    /* Without the flag, older kernels slow a filtered process down against Spectre. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) == 0)
        return 0;
    return errno == EINVAL ? (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) : -1;
}
