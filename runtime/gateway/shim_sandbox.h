/* What a function's process gives up for good, between fork and exec; part of balm-shim, none of the archive.
 *
 *   user         one of its own; no group but its own; no capability, also none to come (bounding set)
 *   files        Landlock: the system to read and to run, its own program and what it was given, to write
 *                only what it was given; no truncating, linking, renaming or ioctl elsewhere
 *   processes    Landlock (ABI 6): no signal and no abstract socket beyond its own; no ptrace
 *   calls        seccomp: none of those that no function needs and that kernels were broken by; without a
 *                user of its own, none that changes other processes of that user or shares memory with them
 *   descriptors  those below the lifeline's: 0, 1, 2, the broker's socket, the listener
 *   number       SANDBOX_PROCESSES_MAX processes and threads of its user (RLIMIT_NPROC)
 *   memory       no core file, not even one through a pipe (RLIMIT_CORE 1)
 *
 * The platform has looked at what this kernel offers (isolation.c) and says what is to be applied. What it
 * says must succeed, or the function does not start. */
#ifndef BALM_GATEWAY_SHIM_SANDBOX_H
#define BALM_GATEWAY_SHIM_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

#define SANDBOX_PATHS_MAX     528
#define SANDBOX_PROCESSES_MAX 4096

/* Says on stderr what was attempted and why it failed (errno). Returns the exit code. */
int shim_fail(const char *what);
/* The same of a program that cannot be run; the exit code is a shell's: 127 not found, else 126. */
int shim_fail_exec(const char *program);

struct sandbox_path {
    char access; /* 'r': read and run; 'w': write as well, but not run; 'd': read, and remove files */
    const char *path;
};

struct sandbox {
    unsigned uid;     /* its gid, too; 0: as the shim */
    int landlock_abi; /* 0: no Landlock */
    bool has_seccomp;
    bool has_unix_sockets; /* new ones; inherited ones always work */
    bool may_bind;         /* a TCP port (Landlock ABI 4) */
    bool may_trace;        /* itself: what the leak checker of a sanitizer does */
    struct sandbox_path paths[SANDBOX_PATHS_MAX];
    size_t n_paths;
};

/* program: it may run it wherever it lies; *ret_program_fd (O_PATH, closed by exec) for where its folders are
 * closed to the new user. Descriptors from `first_fd` on close with exec. The death signal is to be set after
 * this: a new user clears it. 0, or the exit code to end with; why was said. */
int sandbox_enter(const struct sandbox *sandbox, const char *program, int first_fd, int *ret_program_fd);

/* shim_seccomp.c: the filter of system calls. no_new_privs is set. -1: errno. */
int sandbox_filter_calls(const struct sandbox *sandbox);

#endif
