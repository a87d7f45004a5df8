/* A new file or folder exists for good only once the folder that it is in has been synced; who made it says
 * so if that failed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "functions/audit/seal_files.h"
#include "tests/contract/disk_faults.h"

static char dir[1024], part[1100];
static struct error err;

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/balm-names-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
}

static const char *in_folder(const char *name)
{
    (void)snprintf(part, sizeof(part), "%s/%s", dir, name);
    return part;
}

static void tear_down(void)
{
    static const char *const names[] = {"audit/key", "audit/key.pub", "audit/leaves", "audit/checkpoints",
                                        "audit",     "one/two",       "one",          ""};
    disk_faults_clear();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)remove(in_folder(names[i]));
}

TestSuite(names, .init = set_up, .fini = tear_down);

/* The folder above each new one is synced: two calls here, so the third fault meets nothing. */
Test(names, a_new_folder_is_not_there_before_its_name_is_on_the_disk)
{
    disk_faults_set(DISK_FAULT_FOLDER, EIO, 0, 1);
    cr_assert_neq(dir_make(in_folder("one/two"), 0700, &err), STATUS_OK);
    cr_assert_eq(disk_faults_hits(), 1);
    disk_faults_set(DISK_FAULT_FOLDER, EIO, 1, 1);
    cr_assert_neq(dir_make(in_folder("one/two"), 0700, &err), STATUS_OK, "tried again, it is synced again");
    cr_assert_eq(access(in_folder("one/two"), F_OK), -1);
    disk_faults_set(DISK_FAULT_FOLDER, EIO, 0, 1);
    cr_assert_neq(dir_make(in_folder("one/two"), 0700, &err), STATUS_OK);
    cr_assert_eq(rmdir(in_folder("one")), 0);
    disk_faults_set(DISK_FAULT_FOLDER, EIO, 2, 1);
    cr_assert_eq(dir_make(in_folder("one/two"), 0700, &err), STATUS_OK, "%s", err.message);
}

/* The folder's, the key's and the public key's name, then leaves and checkpoints together. */
Test(names, a_seal_is_not_begun_before_its_files_names_are_on_the_disk)
{
    struct seal_files f;
    for (unsigned after = 0; after < 4; after++) {
        disk_faults_set(DISK_FAULT_FOLDER, EIO, after, 1);
        cr_assert_neq(seal_files_open(&f, dir, SV("test"), 0, &err), STATUS_OK, "sync %u", after + 1);
        tear_down();
        cr_assert_eq(mkdir(dir, 0700), 0);
    }
    cr_assert_eq(seal_files_open(&f, dir, SV("test"), 0, &err), STATUS_OK, "%s", err.message);
    seal_files_close(&f);
}
