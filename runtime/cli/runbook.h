/* balm runbook: check, list and show are a file each or two; what they share. */
#ifndef BALM_CLI_RUNBOOK_H
#define BALM_CLI_RUNBOOK_H

#include "cli/cli.h"

struct runbook_cfg {
    struct cli_platform platform;
    const char *stack_file, *functions_dir, *bots_dir;
    bool is_json;
};

/* Reads runbooks as balm up would and prints every fault: folders and files, n = 0: the folder that balm up
 * would take. Returns the exit code; CLI_USAGE where there is a fault. */
int runbook_run_check(const struct command *self, const struct runbook_cfg *cfg, char **paths, int n);
/* Of the running platform. */
int runbook_run_list(const struct command *self, const struct runbook_cfg *cfg);
int runbook_run_show(const struct command *self, const struct runbook_cfg *cfg, const char *name);

#endif
