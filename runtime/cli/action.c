#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

/* One run of a command. */
struct run {
    const struct cli_action *action;
    char *given[CLI_ARGUMENTS_MAX + 1]; /* its arguments; NULL from the last one on */
    struct arena arena;
    struct error err;
};

static enum status unknown_word(const struct cli_action *actions, size_t n, const char *word,
                                struct error *err)
{
    const char *names[16];
    struct buf all;
    if (n > ARRAY_LEN(names)) n = ARRAY_LEN(names);
    buf_init(&all, 500);
    for (size_t i = 0; i < n; i++) {
        names[i] = actions[i].name;
        buf_printf(&all, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    const char *nearest = word != NULL ? config_nearest(word, names, n) : NULL;
    enum status s;
    if (word == NULL)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "say one of %.*s", SV_ARG(buf_view(&all)));
    else if (nearest != NULL)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "unknown '%.100s' (did you mean '%s'?)", word, nearest);
    else
        s = error_set(err, STATUS_INVALID_ARGUMENT, "unknown '%.100s': say one of %.*s", word,
                      SV_ARG(buf_view(&all)));
    buf_release(&all);
    return s;
}

static enum status take_arguments(struct run *r, char **given, int n)
{
    struct strview rest = sv(r->action->arguments), name;
    int n_taken = 0;
    if (rest.len == 0) rest = sv(NULL);
    while (sv_next(&rest, ' ', &name)) {
        if (n_taken < n)
            r->given[n_taken] = given[n_taken];
        else if (name.ptr[0] != '[')
            return error_set(&r->err, STATUS_INVALID_ARGUMENT, "%s%stakes %s",
                             r->action->name != NULL ? r->action->name : "",
                             r->action->name != NULL ? " " : "", r->action->arguments);
        n_taken++;
    }
    if (n <= n_taken) return STATUS_OK;
    if (n_taken == 0)
        return error_set(&r->err, STATUS_INVALID_ARGUMENT, "takes no argument, got '%.100s'", given[0]);
    return error_set(&r->err, STATUS_INVALID_ARGUMENT, "takes %s, got '%.100s' as well%s",
                     r->action->arguments, given[n_taken],
                     sv_ends_with(sv(r->action->arguments), SV("TEXT")) ? "; quote a text of several words"
                                                                        : "");
}

static enum status choose(struct run *r, const struct cli_action *actions, size_t n, char **given,
                          int n_given)
{
    if (actions[0].name == NULL) {
        r->action = &actions[0];
        return take_arguments(r, given, n_given);
    }
    const char *word = n_given > 0 ? given[0] : NULL;
    for (size_t i = 0; word != NULL && i < n && r->action == NULL; i++)
        if (strcmp(actions[i].name, word) == 0) r->action = &actions[i];
    if (r->action == NULL) return unknown_word(actions, n, word, &r->err);
    return take_arguments(r, given + 1, n_given - 1);
}

static int show(struct run *r, const void *cfg, const json_t *answer, bool is_json)
{
    if (is_json) {
        (void)json_dumpf(answer, stdout, JSON_COMPACT | JSON_SORT_KEYS);
        putchar('\n');
    } else {
        r->action->print(cfg, answer, &r->arena);
    }
    return r->action->judge != NULL ? r->action->judge(answer) : CLI_OK;
}

int cli_act(const struct command *self, const struct cli_action *actions, size_t n, int argc, char **argv,
            void *cfg, const bool *is_json)
{
    struct run r = {.action = NULL};
    json_t *answer = NULL;
    int n_given = 0, code = CLI_OK;
    if (!cli_parse(self, argc, argv, &r.arena, cfg, &n_given, &code)) goto out;
    if (choose(&r, actions, n, argv + 1, n_given) != STATUS_OK ||
        r.action->ask(cfg, r.given, &r.arena, &answer, &r.err) != STATUS_OK)
        code = cli_fail(self, &r.err);
    else
        code = show(&r, cfg, answer, *is_json);
out:
    json_release(answer);
    arena_release(&r.arena);
    return code;
}
