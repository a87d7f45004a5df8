#include "run-program.gen.h"

#include <inttypes.h>

#define OUTPUT_IN_MESSAGE 300

/* ["name=value", …] -> {"name": "value"}. What they may be, the platform's list says. */
static enum status parse_arguments(const struct run_program_params *p, json_t *arguments, struct error *err)
{
    for (size_t i = 0; i < p->arguments.n; i++) {
        struct strview item = p->arguments.items[i];
        size_t equals = sv_find(item, '=');
        struct strview name = sv_sub(item, 0, equals);
        if (equals == item.len || name.len == 0)
            return error_set(err, STATUS_INVALID_ARGUMENT, "argument '%.*s' is not name=value",
                             SV_ARG(sv_sub(item, 0, 100)));
        if (json_object_getn(arguments, name.ptr, name.len) != NULL)
            return error_set(err, STATUS_INVALID_ARGUMENT, "argument '%.*s' is given twice", SV_ARG(name));
        (void)json_object_setn_new(arguments, name.ptr, name.len,
                                   json_text(sv_sub(item, equals + 1, item.len)));
    }
    return STATUS_OK;
}

/* The words as one line, for a sentence. */
static struct strview words_of(struct arena *a, const json_t *argv)
{
    struct strview line = SV("");
    for (size_t i = 0; i < json_array_size(argv); i++)
        line = arena_printf(a, "%.*s%s'%s'", SV_ARG(line), i > 0 ? " " : "",
                            json_string_value(json_array_get(argv, i)));
    return line;
}

static void describe(struct result *ret, const struct run_program_params *p, const json_t *reply)
{
    struct strview output = sv_trim(json_get_text(reply, "output"));
    result_set_text(ret, "program", p->program);
    if (output.len > 0) result_set_text(ret, "output", output);
    (void)json_object_set_new(ret->detail, "dryRun", json_boolean(p->dry_run));
    (void)json_object_set(ret->detail, "argv", json_object_get(reply, "argv"));
}

static enum status conclude(const struct invocation *inv, const struct run_program_params *p,
                            const json_t *reply, struct result *ret, struct error *err)
{
    struct strview output = sv_trim(json_get_text(reply, "output"));
    int64_t exit_code = json_integer_value(json_object_get(reply, "exit"));
    if (p->dry_run) {
        describe(ret, p, reply);
        return result_unchanged(ret, "dry run: would run %.*s",
                                SV_ARG(words_of(inv->arena, json_object_get(reply, "argv"))));
    }
    if (exit_code != 0)
        return error_set(err, STATUS_INTERNAL, "'%.*s' ended with exit %" PRId64 "%s%.*s", SV_ARG(p->program),
                         exit_code, output.len > 0 ? "; it said: " : "",
                         SV_ARG(sv_sub(output, 0, OUTPUT_IN_MESSAGE)));
    describe(ret, p, reply);
    return result_done(ret, "'%.*s' was run and ended with exit 0", SV_ARG(p->program));
}

static enum status run(struct invocation *inv, const struct run_program_params *p, const json_t *arguments,
                       struct result *ret, struct error *err)
{
    json_t *reply = NULL;
    enum status s = invocation_check(inv, err);
    if (s == STATUS_OK)
        s = host_act_with(inv, p->dry_run ? SV("program-show") : SV("program-run"), p->program, arguments,
                          &reply, err);
    if (s == STATUS_OK) s = conclude(inv, p, reply, ret, err);
    json_release(reply);
    return s;
}

enum status run_program_handle(struct invocation *inv, const struct run_program_params *p, struct result *ret,
                               struct error *err)
{
    struct error why = {0};
    json_t *arguments = json_object();
    enum status s = parse_arguments(p, arguments, &why);
    if (s == STATUS_OK) s = run(inv, p, arguments, ret, &why);
    json_release(arguments);
    /* Not on the list, or not with these arguments: nothing was changed, and asking again changes nothing. */
    if (s == STATUS_PERMISSION_DENIED || s == STATUS_INVALID_ARGUMENT)
        return result_refused(ret, "%s", why.message);
    if (s != STATUS_OK && err != NULL) *err = why;
    return s;
}
