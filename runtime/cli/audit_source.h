/* Where balm audit tail and cat read from: the journal's files, or a platform elsewhere. */
#ifndef BALM_CLI_AUDIT_SOURCE_H
#define BALM_CLI_AUDIT_SOURCE_H

#include "cli/cli.h"
#include "store/journal.h"

struct audit_source {
    const struct cli_platform *platform;
    struct journal_reader *reader; /* owned; NULL: the platform at platform->url is asked */
    uint64_t first_seq, last_seq;  /* last_seq: as the platform said last; of files it is not known, 0 */
};

/* data_dir: where platform->url is NULL. STATUS_NOT_FOUND: no journal there. */
enum status audit_source_open(const struct cli_platform *platform, const char *data_dir,
                              struct audit_source *ret_source, struct error *err) MUST_USE;
/* As journal_reader_read(), decoded. */
enum status audit_source_read(struct audit_source *s, uint64_t seq, size_t max, struct arena *a,
                              struct journal_entry **ret_entries, size_t *ret_n, struct error *err) MUST_USE;
/* A zeroed one is fine. */
void audit_source_close(struct audit_source *s);

#endif
