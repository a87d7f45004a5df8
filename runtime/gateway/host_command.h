/* One command run on the host, outside every sandbox: a session of its own, no standard input, a fixed
 * environment, default signals, the descriptors' limit that was asked for. What it leaves running is not
 * ours: it is not waited for, outlives us, and can write to its outputs for ever (shim.c, --drain). */
#ifndef BALM_GATEWAY_HOST_COMMAND_H
#define BALM_GATEWAY_HOST_COMMAND_H

#include "loop/loop.h"

#define HOST_COMMAND_WORDS_MAX 2048

/* What commands get as their environment: ours may hold secrets, and must not steer what runs out there. */
extern const char *const host_command_env[];

struct host_command_cfg {
    const char *const *argv; /* argv[0] is an absolute path */
    const char *shim_path;
    uint64_t files_max; /* RLIMIT_NOFILE, soft; 0: ours */
    int pid_fd;         /* the command's pid is written here before it begins; borrowed */
};

struct host_command;

/* STATUS_NOT_FOUND, STATUS_PERMISSION_DENIED: argv[0] cannot be run; nothing was started then, as with every
 * error. cfg is read before it returns. */
enum status host_command_start(const struct host_command_cfg *cfg, struct host_command **ret_command,
                               struct error *err) MUST_USE;
/* Leads the session. */
pid_t host_command_pid(const struct host_command *c);
/* Suspends until the command has ended. At the deadline its whole session is killed, and only then this
 * returns STATUS_DEADLINE_EXCEEDED. Once. */
enum status host_command_wait(struct host_command *c, int64_t deadline_ns, int *ret_exit,
                              struct error *err) MUST_USE;
/* The end of what it has written, to either output; at most HOST_COMMAND_WORDS_MAX bytes. Borrowed. */
struct strview host_command_words(const struct host_command *c);
/* After host_command_wait(). Suspends. */
void host_command_free(struct host_command *c);

#endif
