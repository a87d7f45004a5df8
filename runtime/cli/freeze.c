/* balm stop, resume, reload: steering a running platform. */
#include "cli/cli.h"

#include <stddef.h>
#include <stdio.h>

struct steer_cfg {
    struct cli_platform platform;
    const char *actor, *reason;
    bool is_json;
    /* Not options: what the command asks for, and says when it is done. */
    const char *path, *sentence;
    bool is_on;
};

static const struct config_option options[] = {
    CLI_PLATFORM_OPTIONS(struct steer_cfg, platform),
    CLI_ACTOR_OPTION(struct steer_cfg, actor),
    {.name = "reason",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct steer_cfg, reason),
     .value_name = "TEXT",
     .help = "stop, resume: why, for the record"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct steer_cfg, is_json),
     .help = "print the answer as JSON"},
};

static enum status ask(const void *arg, char *const *arguments, struct arena *a, json_t **ret_answer,
                       struct error *err)
{
    const struct steer_cfg *cfg = arg;
    (void)arguments;
    (void)a;
    json_t *body = json_pack("{s:b}", "on", cfg->is_on);
    enum status s = cli_put(body, "actor", cfg->actor, err);
    if (s == STATUS_OK && cfg->reason != NULL) s = cli_put(body, "reason", cfg->reason, err);
    if (s == STATUS_OK) s = cli_api(&cfg->platform, "POST", cfg->path, body, ret_answer, err);
    json_release(body);
    return s;
}

static void print(const void *arg, const json_t *answer, struct arena *a)
{
    const struct steer_cfg *cfg = arg;
    (void)answer;
    (void)a;
    puts(cfg->sentence);
}

static int steer(const struct command *self, int argc, char **argv, struct steer_cfg cfg)
{
    static const struct cli_action action = {.arguments = "", .ask = ask, .print = print};
    return cli_act(self, &action, 1, argc, argv, &cfg, &cfg.is_json);
}

static int run_stop(const struct command *self, int argc, char **argv)
{
    return steer(
        self, argc, argv,
        (struct steer_cfg){
            .path = "/function/dispatcher/freeze",
            .is_on = true,
            .sentence = "stopped: no bot acts until balm resume (alerts are still accepted and decided on)"});
}

static int run_resume(const struct command *self, int argc, char **argv)
{
    return steer(self, argc, argv,
                 (struct steer_cfg){.path = "/function/dispatcher/freeze", .sentence = "resumed"});
}

static int run_reload(const struct command *self, int argc, char **argv)
{
    return steer(self, argc, argv,
                 (struct steer_cfg){.path = "/system/reload",
                                    .sentence = "reloaded: runbooks, stack file and allow list"});
}

const struct command command_stop = {
    .name = "stop",
    .arguments = "",
    .summary = "no bot acts from now on, until balm resume",
    .description =
        "Returns once no mutating request can leave any bot: acts under way have ended or were cut at their next step.\n"
        "The platform keeps running: alerts are accepted, decided on and recorded.\n"
        "Where no command can be run: SIGUSR1 to the platform's process, or a file named stop in its data folder (what is in it is the reason);\n"
        "a platform that finds the file at its start never lets anything act. Removing the file resumes nothing: that is balm resume's.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_stop,
};

const struct command command_resume = {
    .name = "resume",
    .arguments = "",
    .summary = "let bots act again",
    .description = "Refused while there is a file named stop in the platform's data folder.",
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
