/* stack.yml on any bytes, by the platform's own reader. The folder of executables is empty, so nothing is
 * started and the first function that is whole is the last that is looked at: its refusal says so.
 *
 * Reads: gateway/stack.c */
#include "gateway/gateway.h"

#include <string.h>

#include "folder.h"
#include "in_loop.h"
#include "replay.h"

static void read_stack(void *arg)
{
    char functions[FOLDER_PATH_MAX];
    const char *file = arg;
    struct gateway_plan *plan = NULL;
    struct error err = {0};
    (void)snprintf(functions, sizeof(functions), "%s/none", folder());
    const struct gateway_cfg cfg = {.stack_file = file, .functions_dir = functions};
    if (gateway_plan_new(the_loop(), &cfg, &plan, &err) == STATUS_OK)
        gateway_plan_free(plan);
    else
        assert(strncmp(err.message, file, strlen(file)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[FOLDER_PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s", folder_put("stack.yml", sv_n((const char *)bytes, n)));
    in_loop(read_stack, path);
    return 0;
}
