#include "my-bot.gen.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

/* One invocation. The parameters of bot.yaml come checked; they are an alert's: never hand one to a shell. An
 * error status is "failed", with its sentence; can_retry of an error says whether again can help. */
enum status my_bot_handle(struct invocation *inv, const struct my_bot_params *p, struct result *ret,
                          struct error *err)
{
    const char *file = arena_cstr(inv->arena, p->file);
    struct stat st;
    log_info("my-bot", "looking for a file", LOG_SV("file", p->file), LOG_SV("call_id", inv->call_id));
    if (stat(file, &st) != 0 && errno == ENOENT) return result_refused(ret, "%s is not there", file);
    if (stat(file, &st) != 0)
        return error_set(err, status_from_errno(errno), "%s: %s", file, strerror(errno));
    result_set_int(ret, "bytes", st.st_size);
    return result_unchanged(ret, "%.*s: %s has %" PRId64 " bytes", SV_ARG(p->alertname), file,
                            (int64_t)st.st_size);
}
