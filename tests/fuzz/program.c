/* What a program that acts wrote on its standard output: read as one result, or as none, and then never as a
 * success.
 *
 * Reads: function/program_result.c */
#include <assert.h>

#include "function/program_impl.h"
#include "replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const struct program program = {.name = "fixer"};
    struct arena a = {0};
    struct result r = {.arena = &a};
    struct error err = {0};
    enum status s = program_result(&program, sv_n((const char *)bytes, n), &r, &err);
    if (s == STATUS_OK)
        assert(r.state != RESULT_NONE);
    else
        assert((s == STATUS_UNKNOWN || s == STATUS_INTERNAL) && err.code == s && err.message[0] != '\0' &&
               r.detail == NULL);
    json_release(r.detail);
    arena_release(&a);
    return 0;
}
