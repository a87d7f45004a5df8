/* The bots of the kill campaign: one program under four names. What they do is counted outside of balm: each
 * step is a line in the file that `acts_log` names, written by one write(2) behind O_APPEND, so a kill leaves
 * it whole or not at all.
 *
 *   rerunner    on_unknown: rerun      begin, wait, end
 *   escalator   on_unknown: escalate   the same
 *   rereader    on_unknown: reread     its effect is its mark, a file MARKS/INTENT: found, or else begin,
 * wait, end callee      does not act: begin, wait, end, by the id of the call
 *
 *   STEP NAME INTENT-OR-CALL ATTEMPT UNIX-NS */
#include "balm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <unistd.h>

#include "base/list.h"
#include "function/params.h"

#define CALL_ID(inv) ((inv)->intent.len > 0 ? (inv)->intent : (inv)->call_id)

struct actor_params {
    int64_t ms;
};

static const struct param_field fields[] = {
    {.name = "ms", .type = PARAM_INTEGER, .offset = offsetof(struct actor_params, ms), .max = 60000},
};

static enum status decode(const json_t *body, struct arena *a, void *ret_params, struct error *err)
{
    struct actor_params p = {0};
    enum status s = params_decode("actor", fields, ARRAY_LEN(fields), body, a, &p, err);
    if (s == STATUS_OK) *(struct actor_params *)ret_params = p;
    return s;
}

static enum status note(const struct invocation *inv, const char *step, struct error *err)
{
    const char *path = getenv("acts_log");
    struct strview line =
        arena_printf(inv->arena, "%s %.*s %.*s %u %" PRId64 "\n", step, SV_ARG(inv->function),
                     SV_ARG(CALL_ID(inv)), inv->attempt, clock_unix_ns());
    int fd = path != NULL ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    bool is_written = fd >= 0 && write(fd, line.ptr, line.len) == (ssize_t)line.len;
    if (fd >= 0) (void)close(fd);
    if (is_written) return STATUS_OK;
    return error_set(err, STATUS_FAILED_PRECONDITION, "the log of acts cannot be written");
}

static enum status act(struct invocation *inv, const void *params, struct result *ret, struct error *err)
{
    const struct actor_params *p = params;
    enum status s = invocation_check(inv, err);
    if (s == STATUS_OK) s = note(inv, "begin", err);
    if (s == STATUS_OK && p->ms > 0) s = sleep_ms((uint32_t)p->ms);
    if (s == STATUS_OK) s = note(inv, "end", err);
    return s == STATUS_OK ? result_done(ret, "acted for %" PRId64 " ms", p->ms) : s;
}

/* The effect and its mark are one: who comes again sees that it was done. */
static enum status act_once(struct invocation *inv, const void *params, struct result *ret, struct error *err)
{
    const char *folder = getenv("acts_marks");
    enum status s = invocation_check(inv, err);
    if (s != STATUS_OK) return s;
    const char *mark =
        arena_printf(inv->arena, "%s/%.*s", folder != NULL ? folder : "", SV_ARG(inv->intent)).ptr;
    int fd = open(mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        (void)close(fd);
        return act(inv, params, ret, err);
    }
    if (errno != EEXIST) return error_set(err, STATUS_FAILED_PRECONDITION, "the mark cannot be made");
    s = note(inv, "found", err);
    return s == STATUS_OK ? result_unchanged(ret, "an attempt before had done it") : s;
}

/* The body is how many milliseconds it takes. */
static enum status serve(struct invocation *inv, const void *params, struct result *ret, struct error *err)
{
    uint64_t ms = 0;
    (void)params;
    if (inv->req->body.len > 0 && (sv_parse_u64(inv->req->body, &ms) != STATUS_OK || ms > 60000))
        return result_reply(ret, 400, SV("text/plain"), SV("the body is a number of milliseconds"));
    enum status s = note(inv, "begin", err);
    if (s == STATUS_OK && ms > 0) s = sleep_ms((uint32_t)ms);
    if (s == STATUS_OK) s = note(inv, "end", err);
    return s == STATUS_OK ? result_reply(ret, 200, SV("text/plain"), CALL_ID(inv)) : s;
}

#define MANIFEST(name, word)                                                                                 \
    "{\"acts\":true,\"auth\":\"signed\",\"destructive\":false,\"name\":\"" name "\",\"on_unknown\":\"" word  \
    "\",\"params\":{\"ms\":{\"default\":0,\"max\":60000,\"min\":0,\"type\":\"integer\"}},"                   \
    "\"removes_series\":false,\"summary\":\"Writes a line\",\"timeout\":\"30s\",\"touches\":{},"             \
    "\"undo\":\"none: it was written\",\"verify\":\"none\"}"

static const struct function_def defs[] = {
    {.name = "rerunner",
     .summary = "Writes a line an act, again if it is asked again",
     .acts = true,
     .on_unknown = ON_UNKNOWN_RERUN,
     .params_bytes = sizeof(struct actor_params),
     .decode = decode,
     .handle = act,
     .manifest_json = MANIFEST("rerunner", "rerun")},
    {.name = "escalator",
     .summary = "Writes a line an act, and must not be asked again",
     .acts = true,
     .on_unknown = ON_UNKNOWN_ESCALATE,
     .params_bytes = sizeof(struct actor_params),
     .decode = decode,
     .handle = act,
     .manifest_json = MANIFEST("escalator", "escalate")},
    {.name = "rereader",
     .summary = "Makes a mark an act, once",
     .acts = true,
     .on_unknown = ON_UNKNOWN_REREAD,
     .params_bytes = sizeof(struct actor_params),
     .decode = decode,
     .handle = act_once,
     .manifest_json = MANIFEST("rereader", "reread")},
    {.name = "callee",
     .summary = "Writes a line a call",
     .handle = serve,
     .manifest_json = "{\"acts\":false,\"auth\":\"open\",\"name\":\"callee\",\"params\":{},\"summary\":"
                      "\"Writes a line a call\",\"timeout\":\"30s\"}"},
};

int main(int argc, char **argv)
{
    const char *name = basename(argv[0]);
    for (size_t i = 0; i < ARRAY_LEN(defs); i++)
        if (sv_eq(sv(name), sv(defs[i].name))) return function_main(&defs[i], argc, argv);
    fprintf(stderr, "actor: no bot '%s': it goes by the name it is called by\n", name);
    return 2;
}
