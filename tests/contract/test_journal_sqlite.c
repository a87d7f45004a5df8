/* The SQLite store: the contract, and what is its own: segments, other processes, damage, a disk that fails. */
#include "contract/journal_contract.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "contract/check.h"
#include "contract/disk_faults.h"

static char dir[4096];

static void create(struct journal_contract *c)
{
    (void)c;
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/balm-journal-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(dir) != NULL);
}

static void destroy(struct journal_contract *c)
{
    (void)c;
    DIR *d = opendir(dir);
    CHECK(d != NULL);
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(d), entry->d_name, 0);
    (void)closedir(d);
    CHECK(rmdir(dir) == 0);
}

static enum status open_store(struct journal_contract *c, struct journal_cfg cfg, struct journal **ret_journal, struct error *err)
{
    cfg.dir = dir;
    return journal_open_sqlite(c->loop, &cfg, ret_journal, err);
}

static void set_failing(struct journal_contract *c, bool is_failing)
{
    (void)c;
    if (is_failing)
        disk_faults_set(DISK_FAULT_SYNC, EIO, 0, 0);
    else
        disk_faults_clear();
}

int main(int argc, char **argv)
{
    struct journal_contract c = {
        .name = "sqlite", .create = create, .destroy = destroy, .open = open_store, .set_failing = set_failing};
    return journal_contract_main(&c, NULL, argc, argv);
}
