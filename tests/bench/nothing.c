/* A bot that acts and does nothing: what is left of a chain is the platform's. */
#include "balm.h"

static enum status do_nothing(struct invocation *inv, const void *params, struct result *ret,
                              struct error *err)
{
    (void)inv, (void)params, (void)err;
    return result_done(ret, "nothing");
}

static const struct function_def def = {
    .name = "nothing",
    .summary = "Acts on nothing",
    .acts = true,
    .on_unknown = ON_UNKNOWN_RERUN,
    .handle = do_nothing,
    .manifest_json =
        "{\"acts\":true,\"auth\":\"signed\",\"destructive\":false,\"name\":\"nothing\",\"on_unknown\":\"rerun\","
        "\"params\":{},\"removes_series\":false,\"summary\":\"Acts on nothing\",\"tells_people\":false,"
        "\"timeout\":\"30s\",\"verify_by\":[\"check\",\"resolve\"]}",
};

int main(int argc, char **argv)
{
    return function_main(&def, argc, argv);
}
