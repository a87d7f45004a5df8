/* balm stop, resume, reload: steering a running platform. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

struct steer_cfg {
    struct cli_platform platform;
    const char *actor;
    bool is_json;
};

static const struct config_option options[] = {
    CLI_PLATFORM_OPTIONS(struct steer_cfg, platform),
    CLI_ACTOR_OPTION(struct steer_cfg, actor),
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct steer_cfg, is_json),
     .help = "print the answer as JSON"},
};

static void print_answer(const struct steer_cfg *cfg, json_t *answer, const char *sentence)
{
    if (cfg->is_json)
        json_dumpf(answer, stdout, JSON_COMPACT);
    else
        fputs(sentence, stdout);
    putchar('\n');
}

static int steer(const struct command *self, int argc, char **argv, const char *path, bool is_on,
                 const char *sentence)
{
    struct arena a = {0};
    struct steer_cfg cfg = {0};
    struct error err = {0};
    int n = 0, code = CLI_OK;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    if (n > 0) {
        error_set(&err, STATUS_INVALID_ARGUMENT, "takes no argument, got '%s'", argv[1]);
        code = cli_fail(self, &err);
        goto out;
    }
    json_t *body = json_pack("{s:s, s:b}", "actor", cfg.actor, "on", is_on), *answer = NULL;
    if (cli_api(&cfg.platform, "POST", path, body, &answer, &err) != STATUS_OK)
        code = cli_fail(self, &err);
    else
        print_answer(&cfg, answer, sentence);
    json_release(body);
    json_release(answer);
out:
    arena_release(&a);
    return code;
}

static int run_stop(const struct command *self, int argc, char **argv)
{
    return steer(self, argc, argv, "/function/dispatcher/freeze", true,
                 "stopped: no bot acts until balm resume (alerts are still accepted and decided on)");
}

static int run_resume(const struct command *self, int argc, char **argv)
{
    return steer(self, argc, argv, "/function/dispatcher/freeze", false, "resumed");
}

static int run_reload(const struct command *self, int argc, char **argv)
{
    return steer(self, argc, argv, "/system/reload", true, "reloaded: runbooks, stack file and allow list");
}

const struct command command_stop = {
    .name = "stop",
    .arguments = "",
    .summary = "no bot acts from now on, until balm resume",
    .description =
        "Returns once no mutating request can leave any bot: acts under way have ended or were cut at their next step.\n"
        "The platform keeps running: alerts are accepted, decided on and recorded.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_stop,
};

const struct command command_resume = {.name = "resume",
                                       .arguments = "",
                                       .summary = "let bots act again",
                                       .options = options,
                                       .n_options = ARRAY_LEN(options),
                                       .run = run_resume};

const struct command command_reload = {
    .name = "reload",
    .arguments = "",
    .summary = "read runbooks, stack file and allow list again",
    .description =
        "All of them, or none: a bad file keeps what was there of each, and is named with line, column and what is wrong.\n"
        "SIGHUP does the same.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_reload,
};
