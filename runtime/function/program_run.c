#include "base/clock.h"
#include "config/bytes.h"
#include "function/program_impl.h"
#include "loop/loop.h"

#define EXIT_TRY_AGAIN 75 /* EX_TEMPFAIL of sysexits.h */
#define WORDS_SHOWN    300
/* What a killed act's time is cut by, so that it has ended, and we have said so, before its deadline. At most
 * a quarter of what is left. */
#define VERDICT_NS (2500 * NS_PER_MS)

/* ---- what was said ---- */

static struct strview last_line(struct strview text)
{
    struct strview rest = sv_trim(text), line = {0};
    while (sv_next(&rest, '\n', &line)) {
    }
    line = sv_trim(line);
    return line.len > WORDS_SHOWN ? sv_sub(line, line.len - WORDS_SHOWN, line.len) : line;
}

static const char *limit_text(const struct program *p, char ret_text[BYTES_TEXT_MAX])
{
    return bytes_format(p->max_output_bytes, ret_text);
}

/* ---- plain functions ---- */

static struct strview content_type(const struct program *p, const struct invocation *inv)
{
    if (p->content_type != NULL) return sv(p->content_type);
    if (p->has_manifest) return SV("application/json");
    return http_req_header(inv->req, SV("content-type"));
}

/* What it said on stderr is for the log: whoever called may be anybody. */
static enum status answer(const struct program *p, const struct invocation *inv,
                          const struct process_result *r, struct result *ret, struct error *err)
{
    char limit[BYTES_TEXT_MAX];
    if (r->exit_code != 0)
        return error_set(err, STATUS_INTERNAL, "%s ended with exit %d", p->name, r->exit_code);
    if (r->is_truncated)
        return error_set(err, STATUS_INTERNAL, "%s wrote more than %s (max_output)", p->name,
                         limit_text(p, limit));
    return result_reply(ret, 200, content_type(p, inv), r->stdout_text);
}

/* ---- acting functions ---- */

static enum status judge_exit(const struct program *p, const struct process_result *r, struct error *err)
{
    struct strview words = last_line(r->stderr_text);
    const char *colon = words.len > 0 ? ": " : "";
    if (r->exit_code > 128)
        return error_set(err, STATUS_UNKNOWN, "%s was killed by signal %d%s%.*s", p->name, r->exit_code - 128,
                         colon, SV_ARG(words));
    enum status s = r->exit_code == EXIT_TRY_AGAIN ? STATUS_UNAVAILABLE : STATUS_INTERNAL;
    return error_set(err, s, "%s ended with exit %d%s%.*s", p->name, r->exit_code, colon, SV_ARG(words));
}

static enum status judge(const struct program *p, const struct process_result *r, struct result *ret,
                         struct error *err)
{
    char limit[BYTES_TEXT_MAX];
    if (r->exit_code != 0) return judge_exit(p, r, err);
    if (r->is_truncated)
        return error_set(err, STATUS_UNKNOWN, "%s ended well, but wrote more than %s (max_output)", p->name,
                         limit_text(p, limit));
    return program_result(p, r->stdout_text, ret, err);
}

static int64_t act_end_ns(const struct invocation *inv)
{
    int64_t now_ns = clock_monotonic_ns(), end_ns = now_ns + inv->deadline_unix_ns - clock_unix_ns();
    if (fiber_deadline() != 0 && fiber_deadline() < end_ns) end_ns = fiber_deadline();
    int64_t quarter_ns = (end_ns - now_ns) / 4;
    return end_ns - (quarter_ns < VERDICT_NS ? quarter_ns : VERDICT_NS);
}

/* ---- the process ---- */

/* Not started is nothing done; cut short in the middle is anything. */
static enum status not_finished(const struct program *p, enum status s, const struct error *why,
                                struct error *err)
{
    bool has_begun = s == STATUS_DEADLINE_EXCEEDED || s == STATUS_CANCELLED;
    if (has_begun) return error_set(err, p->acts ? STATUS_UNKNOWN : s, "%s", why->message);
    return error_set(err, s == STATUS_RESOURCE_EXHAUSTED ? STATUS_UNAVAILABLE : STATUS_INTERNAL, "%s",
                     why->message);
}

enum status program_run(const struct program *p, struct invocation *inv, const struct program_params *input,
                        struct result *ret, struct error *err)
{
    struct process_spec spec = {.argv = p->argv,
                                .env = program_env_request(inv, input),
                                .cwd = p->folder,
                                .run_stderr =
                                    p->combine_output ? PROCESS_STDERR_JOINED : PROCESS_STDERR_SHOWN};
    struct process_result r;
    struct error why = {0};
    enum status s = process_run(&spec, input->json, (size_t)p->max_output_bytes,
                                p->acts ? act_end_ns(inv) : 0, inv->arena, &r, &why);
    if (s != STATUS_OK) return not_finished(p, s, &why, err);
    return p->acts ? judge(p, &r, ret, err) : answer(p, inv, &r, ret, err);
}
