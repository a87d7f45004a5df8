#include "function/secret.h"

#include <criterion/criterion.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static struct arena arena;
static const char *folder;

static const char *path_of(const char *name)
{
    return arena_printf(&arena, "%s/%s", folder, name).ptr;
}

static void set_up(void)
{
    const char *parent = getenv("TMPDIR");
    char *template =
        arena_cstr(&arena, arena_printf(&arena, "%s/balm-secret-XXXXXX", parent != NULL ? parent : "/tmp"));
    folder = mkdtemp(template);
    cr_assert_not_null(folder);
    cr_assert_eq(setenv("secret_mount_path", folder, 1), 0);
}

static void tear_down(void)
{
    (void)unlink(path_of("key"));
    (void)unlink(path_of("knative/knative"));
    (void)unlink(path_of("knative/token"));
    (void)unlink(path_of("knative/..data/token"));
    (void)rmdir(path_of("knative/..data"));
    (void)rmdir(path_of("knative"));
    (void)rmdir(folder);
    arena_release(&arena);
}

TestSuite(secret, .init = set_up, .fini = tear_down);

Test(secret, content_comes_without_the_white_space_around_it)
{
    struct strview got;
    cr_assert_eq(file_write_atomic(path_of("key"), SV(" s3cret \n"), 0600, NULL), STATUS_OK);
    cr_assert_eq(secret_read(&arena, "key", &got, NULL), STATUS_OK);
    cr_assert(sv_eq(got, SV("s3cret")));
    cr_assert_eq(file_write_atomic(path_of("key"), SV("rotated"), 0600, NULL), STATUS_OK);
    cr_assert_eq(secret_read(&arena, "key", &got, NULL), STATUS_OK);
    cr_assert(sv_eq(got, SV("rotated")), "a rotated secret counts at once");
}

Test(secret, knatives_folder_with_a_file_of_the_same_name_is_read)
{
    struct strview got;
    cr_assert_eq(mkdir(path_of("knative"), 0700), 0);
    cr_assert_eq(file_write_atomic(path_of("knative/knative"), SV("deep\n"), 0600, NULL), STATUS_OK);
    cr_assert_eq(secret_read(&arena, "knative", &got, NULL), STATUS_OK);
    cr_assert(sv_eq(got, SV("deep")));
}

Test(secret, of_a_folder_with_one_key_that_one_is_read_whatever_its_name)
{
    struct strview got = SV("untouched");
    struct error err;
    cr_assert_eq(mkdir(path_of("knative"), 0700), 0);
    cr_assert_eq(secret_read(&arena, "knative", &got, &err), STATUS_FAILED_PRECONDITION); /* no key */
    /* As the kubelet mounts it: the files are links into ..data. */
    cr_assert_eq(mkdir(path_of("knative/..data"), 0700), 0);
    cr_assert_eq(file_write_atomic(path_of("knative/..data/token"), SV("t0ken\n"), 0600, NULL), STATUS_OK);
    cr_assert_eq(symlink("..data/token", path_of("knative/token")), 0);
    cr_assert_eq(secret_read(&arena, "knative", &got, &err), STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(got, SV("t0ken")));
    cr_assert_eq(file_write_atomic(path_of("knative/other"), SV("other"), 0600, NULL), STATUS_OK);
    cr_assert_eq(secret_read(&arena, "knative", &got, &err), STATUS_FAILED_PRECONDITION); /* which? */
    cr_assert_eq(file_write_atomic(path_of("knative/knative"), SV("named"), 0600, NULL), STATUS_OK);
    cr_assert_eq(secret_read(&arena, "knative", &got, NULL), STATUS_OK);
    cr_assert(sv_eq(got, SV("named")));
    cr_assert_eq(unlink(path_of("knative/other")), 0);
}

Test(secret, missing_empty_or_too_long_is_a_precondition_that_names_it)
{
    struct strview got = SV("untouched");
    struct error err;
    cr_assert_eq(secret_read(&arena, "key", &got, &err), STATUS_FAILED_PRECONDITION);
    cr_assert(sv_starts_with(sv(err.message), SV("secret 'key' cannot be read: ")), "%s", err.message);
    cr_assert_eq(file_write_atomic(path_of("key"), SV(" \n"), 0600, NULL), STATUS_OK);
    cr_assert_eq(secret_read(&arena, "key", &got, &err), STATUS_FAILED_PRECONDITION);
    cr_assert_str_eq(err.message, "secret 'key' is empty");
    struct strview big = {arena_zalloc(&arena, SECRET_READ_MAX + 1), SECRET_READ_MAX + 1};
    cr_assert_eq(file_write_atomic(path_of("key"), big, 0600, NULL), STATUS_OK);
    cr_assert_eq(secret_read(&arena, "key", &got, &err), STATUS_FAILED_PRECONDITION);
    cr_assert(sv_eq(got, SV("untouched")));
}
