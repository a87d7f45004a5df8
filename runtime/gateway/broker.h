/* The broker: what a sandboxed bot may have done on the host (design §7). Each replica of an acting function
 * has a SOCK_SEQPACKET pair; its end is descriptor 3 there. One message is one JSON object ≤ 64 KiB.
 *
 *   bot -> {"act":"service-restart","subject":"nginx","intent":"…","deadline":"RFC 3339","id":7}
 *   platform -> {"id":7,"ok":true,"exit":0,"output":"…","manager":"argv"}
 *            or {"id":7,"ok":false,"code":"PERMISSION_DENIED","message":"…"}
 *
 *   service-status   {"active":bool,"startedAt":"RFC 3339 or empty","pid":N,
 *                     "state":"active|inactive|failed","manager":"systemd|argv"}
 *   service-restart  {"exit":N,"output":"≤ 2 KiB","manager":…}
 *   program-run      the same and {"argv":[…]}; with "arguments":{"name":value} beside "subject"
 *   program-show     {"argv":[…]}: what program-run would run
 *
 * Allow list (YAML), owned by root or our own user and writable by nobody else, or it is refused whole:
 *
 *   services:
 *     nginx:                           # the only names a bot can use
 *       functions: [service-restart]   # who may
 *       unit: nginx.service            # where systemd is PID 1: systemctl restart --no-ask-password -- UNIT
 *       restart: [/usr/sbin/nginx, -c, /etc/nginx/nginx.conf]
 *                                      # elsewhere: this argv, in a session of its own: it outlives us
 *       pid_file: /run/nginx.pid       # elsewhere: who it is, and since when (/proc/PID/stat)
 *
 *   programs:        # broker_program.h
 *
 * One restart of a service at a time, and one run of a program; what deadlines and a killed platform do to
 * it: broker_restart.h. What a service that was started by argv writes to its standard outputs is dropped
 * once the restart has ended.
 *
 * While frozen (balm stop) every restart is refused with CANCELLED; one that is under way is waited for
 * by the freeze. A reload counts for calls that come after it. */
#ifndef BALM_GATEWAY_BROKER_H
#define BALM_GATEWAY_BROKER_H

#include "loop/loop.h"

struct broker;
struct broker_list;

struct broker_cfg {
    const char *allow_list_file; /* NULL: nothing is allowed */
    int run_dir_fd;              /* DIR/run; borrowed for the broker's life */
    const char *shim_path;
    uint64_t files_max; /* RLIMIT_NOFILE (soft) of what is started on the host; 0: ours */
};

/* cfg is copied, strings too. A list that is wrong or that others can write is refused whole, with
 * FILE:LINE:COLUMN. */
enum status broker_new(const struct broker_cfg *cfg, struct broker **ret_broker, struct error *err) MUST_USE;
/* Waits for restarts under way. Its scope's fibers must have ended. From a fiber. */
void broker_free(struct broker *b);
/* Reads the list anew and keeps it aside; then one of the other two. */
enum status broker_prepare(struct broker *b, struct error *err) MUST_USE;
void broker_commit(struct broker *b);
void broker_discard(struct broker *b);
/* Serves our end of one replica's pair in a fiber of `scope` until the peer closes. fd is moved. */
enum status broker_serve(struct broker *b, struct fiber_scope *scope, int fd, struct strview function,
                         struct error *err) MUST_USE;
/* Names of the services that `function` may have restarted and of the programs that it may have run, in the
 * arena. */
size_t broker_subjects_of(const struct broker *b, struct strview function, struct arena *a,
                          struct strview **ret_names);
/* Suspends until no restart is under way, at most 97 s. */
void broker_freeze(struct broker *b, bool is_frozen);

#endif
