#include <inttypes.h>

#include "functions/dispatcher/decide.h"

enum status decide_verify(struct journal_reader *reader, struct decide_report *ret_report, struct error *err)
{
    *ret_report = (struct decide_report){0};
    uint64_t seq = journal_reader_first_seq(reader);
    if (seq > 1)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "the journal begins at record %" PRIu64 ": what was before is gone", seq);
    struct decide_check *c = decide_check_new();
    struct arena arena = {0};
    enum status s = STATUS_OK;
    for (size_t n = 1; s == STATUS_OK && n > 0;) {
        struct journal_entry *entries;
        arena_reset(&arena);
        s = journal_reader_read(reader, seq == 0 ? 1 : seq, 1000, true, &arena, &entries, &n, err);
        for (size_t i = 0; s == STATUS_OK && i < n; i++) {
            seq = entries[i].seq + 1;
            if (!decide_check_add(c, entries[i].seq, entries[i].record, entries[i].bytes))
                s = error_set(err, STATUS_DATA_LOSS,
                              "record %" PRIu64 " is not what follows from the records before it",
                              entries[i].seq);
        }
    }
    decide_check_report(c, ret_report);
    arena_release(&arena);
    decide_check_free(c);
    return s;
}
