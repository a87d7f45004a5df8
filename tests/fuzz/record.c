/* The record decoder on any bytes: what decodes must encode to bytes that decode to the same bytes, and be
 * what jansson reads.
 *
 * Reads: store/record.c base/json_scan.c base/json.c */
#include "store/record.h"

#include <assert.h>

#include "base/json.h"
#include "replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct record first, second;
    struct buf once, twice;
    buf_init(&once, 8 * RECORD_BYTES_MAX);
    buf_init(&twice, 8 * RECORD_BYTES_MAX);
    if (record_decode(sv_n((const char *)bytes, n), &arena, &first, NULL) == STATUS_OK) {
        record_encode(&first, &once);
        enum status status = record_decode(buf_view(&once), &arena, &second, NULL);
        assert(status == STATUS_OK);
        record_encode(&second, &twice);
        assert(sv_eq(buf_view(&once), buf_view(&twice)));
        json_t *tree = NULL;
        struct error err = {0};
        status = json_parse(buf_view(&once), JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &tree, &err);
        /* jansson gives up on a real beyond a double's range, which JSON has no word against. */
        assert(status == STATUS_OK || sv_contains(sv(err.message), SV("overflow")) ||
               sv_contains(sv(err.message), SV("too big")) ||
               sv_contains(sv(err.message), SV("NUL byte in object key")));
        json_release(tree);
    }
    buf_release(&once);
    buf_release(&twice);
    arena_release(&arena);
    return 0;
}
