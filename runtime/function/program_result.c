#include "function/program_impl.h"

#define SHOWN_MAX 300 /* of what it said */

static enum status said_nothing(const struct program *p, struct strview text, const char *why,
                                struct error *err)
{
    return error_set(err, STATUS_UNKNOWN, "%s ended well, but did not say what came of it (%s): %.*s",
                     p->name, why, SV_ARG(sv_sub(sv_trim(text), 0, SHOWN_MAX)));
}

static enum status take_state(const struct program *p, const json_t *answer, struct result *ret,
                              struct error *err)
{
    struct strview state = json_get_text(answer, "state"), message = json_get_text(answer, "message");
    if (sv_eq(state, SV("done"))) return result_done(ret, "%.*s", SV_ARG(message));
    if (sv_eq(state, SV("unchanged"))) return result_unchanged(ret, "%.*s", SV_ARG(message));
    if (sv_eq(state, SV("refused"))) return result_refused(ret, "%.*s", SV_ARG(message));
    if (message.len == 0) message = SV("it gave no reason");
    if (sv_eq(state, SV("unknown"))) return error_set(err, STATUS_UNKNOWN, "%.*s", SV_ARG(message));
    if (!sv_eq(state, SV("failed")))
        return error_set(err, STATUS_UNKNOWN, "%s answered state '%.*s', which is none", p->name,
                         SV_ARG(sv_sub(state, 0, 40)));
    (void)error_set(err, STATUS_INTERNAL, "%.*s", SV_ARG(message));
    err->can_retry = json_is_true(json_object_get(answer, "retry"));
    return STATUS_INTERNAL;
}

enum status program_result(const struct program *p, struct strview text, struct result *ret,
                           struct error *err)
{
    json_t *answer = NULL;
    struct error why;
    if (json_parse(text, JSON_REJECT_DUPLICATES, &answer, &why) != STATUS_OK)
        return said_nothing(p, text, why.message, err);
    if (!json_is_object(answer) || json_get_text(answer, "state").len == 0) {
        json_release(answer);
        return said_nothing(p, text, "no object with a state", err);
    }
    enum status s = take_state(p, answer, ret, err);
    json_t *detail = json_object_get(answer, "detail");
    if (s == STATUS_OK) {
        if (json_is_object(detail)) ret->detail = json_incref(detail);
        ret->undo = arena_copy(ret->arena, json_get_text(answer, "undo"));
    }
    json_release(answer);
    return s;
}
