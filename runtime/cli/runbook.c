/* balm runbook: are they right, which are in force, and what exactly does one say? */
#include "cli/runbook.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct config_option options[] = {
    CLI_PLATFORM_OPTIONS(struct runbook_cfg, platform),
    {.name = "file",
     .short_name = 'f',
     .env = "BALM_STACK",
     .type = CONFIG_PATH,
     .offset = offsetof(struct runbook_cfg, stack_file),
     .value_name = "FILE",
     .help = "check: the stack file whose functions the steps may name (as for balm up)"},
    {.name = "functions",
     .env = "BALM_FUNCTIONS",
     .type = CONFIG_PATH,
     .offset = offsetof(struct runbook_cfg, functions_dir),
     .value_name = "DIR",
     .help = "check: folder of function executables (as for balm up)"},
    {.name = "bots",
     .type = CONFIG_PATH,
     .offset = offsetof(struct runbook_cfg, bots_dir),
     .value_name = "DIR",
     .help = "check: against DIR/NAME/bot.yaml, built or not; with --file, beside what that deploys"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct runbook_cfg, is_json),
     .help = "JSON instead of text"},
};

static int fail(const struct command *self, const char *sentence, const char *what)
{
    struct error err;
    (void)!error_set(&err, STATUS_INVALID_ARGUMENT, "%s%s%s", sentence, what, what[0] != '\0' ? "'" : "");
    return cli_fail(self, &err);
}

static int unknown_action(const struct command *self, const char *action)
{
    static const char *const actions[] = {"check", "list", "show"};
    const char *nearest = config_nearest(action, actions, ARRAY_LEN(actions));
    struct error err;
    (void)!error_set(&err, STATUS_INVALID_ARGUMENT, "unknown action '%.60s'%s%s%s", action,
                     nearest != NULL ? " (did you mean '" : ": check, list or show",
                     nearest != NULL ? nearest : "", nearest != NULL ? "'?)" : "");
    return cli_fail(self, &err);
}

static int act(const struct command *self, const struct runbook_cfg *cfg, char **argv, int n)
{
    if (n == 0) return fail(self, "say one of check, list, show", "");
    if (strcmp(argv[1], "check") == 0) return runbook_run_check(self, cfg, argv + 2, n - 1);
    if (strcmp(argv[1], "list") == 0)
        return n == 1 ? runbook_run_list(self, cfg) : fail(self, "list takes no argument, got '", argv[2]);
    if (strcmp(argv[1], "show") == 0)
        return n == 2 ? runbook_run_show(self, cfg, argv[2])
                      : fail(self, "show takes one runbook's name", "");
    return unknown_action(self, argv[1]);
}

static int run_runbook(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct runbook_cfg cfg = {0};
    int n = 0, code = CLI_OK;
    if (cli_parse(self, argc, argv, &a, &cfg, &n, &code)) code = act(self, &cfg, argv, n);
    arena_release(&a);
    return code;
}

const struct command command_runbook = {
    .name = "runbook",
    .arguments = "check [DIR|FILE...] | list | show NAME",
    .summary = "are runbooks right, which are in force, and what exactly one says",
    .description =
        "check  reads runbooks as balm up and a reload do, without a platform and without changing anything, and prints every fault of every file with\n"
        "       line, column, field and the nearest known name; exit code 2 if there is one. No DIR or FILE: the folder that balm up would take\n"
        "list   the running platform's: mode, what it matches, its steps, its file, and how often it acted\n"
        "show   one of them with every default written out, its hash, and who put it in force when",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_runbook,
};
