#include "scene.h"

#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static char folder[256];

static void make_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(folder, sizeof(folder), "%s/balm-secrets-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    static const char *const names[] = {"basic-auth-user", "basic-auth-password", "webhook-token",
                                        "invocation-key",  "functions",           ""};
    char path[512];
    for (size_t i = 0; i < 6; i++) {
        (void)snprintf(path, sizeof(path), "%s/secrets/%s", folder, names[i]);
        (void)remove(path);
    }
    (void)rmdir(folder);
}

TestSuite(secrets, .init = make_folder, .fini = remove_folder);

static void write_one(const char *name, const char *text)
{
    char path[512];
    struct error err;
    (void)snprintf(path, sizeof(path), "%s/secrets", folder);
    cr_assert_eq(dir_make(path, 0700, &err), STATUS_OK);
    (void)snprintf(path, sizeof(path), "%s/secrets/%s", folder, name);
    cr_assert_eq(file_write_atomic(path, sv(text), 0600, &err), STATUS_OK);
}

static unsigned mode_of(const char *name)
{
    char path[512];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    cr_assert_eq(stat(path, &st), 0, "%s", path);
    return st.st_mode & 07777;
}

Test(secrets, are_made_once_with_mode_0600_in_a_folder_0700)
{
    struct gateway_secrets first = {0}, second = {0};
    struct error err;
    bool is_new = false;
    umask(0);
    cr_assert_eq(gateway_secrets_load(folder, &first, &is_new, &err), STATUS_OK);
    cr_assert(is_new);
    cr_assert_eq(mode_of("secrets"), 0700);
    cr_assert_eq(mode_of("secrets/functions"), 0700);
    cr_assert_eq(mode_of("secrets/basic-auth-user"), 0600);
    cr_assert_eq(mode_of("secrets/basic-auth-password"), 0600);
    cr_assert_eq(mode_of("secrets/webhook-token"), 0600);
    cr_assert_eq(mode_of("secrets/invocation-key"), 0600);
    cr_assert(sv_eq(first.user, SV("admin")));
    cr_assert_eq(first.password.len, 48);
    cr_assert_eq(first.invocation_key.len, 64);
    cr_assert_not(sv_eq(first.password, first.token));
    cr_assert_eq(gateway_secrets_load(folder, &second, &is_new, &err), STATUS_OK);
    cr_assert_not(is_new);
    cr_assert(sv_eq(first.password, second.password));
    cr_assert(sv_eq(first.invocation_key, second.invocation_key));
    gateway_secrets_release(&first);
    gateway_secrets_release(&second);
    gateway_secrets_release(&second); /* zeroed: nothing happens */
}

Test(secrets, white_space_around_a_secret_is_no_part_of_it)
{
    struct gateway_secrets s = {0};
    struct error err;
    bool is_new;
    write_one("basic-auth-password", "  hunter2\n\n");
    cr_assert_eq(gateway_secrets_load(folder, &s, &is_new, &err), STATUS_OK);
    cr_assert(sv_eq(s.password, SV("hunter2")));
    cr_assert_not(is_new);
    gateway_secrets_release(&s);
}

Test(secrets, an_empty_file_stops_the_start_and_is_named)
{
    struct gateway_secrets s = {0};
    struct error err;
    bool is_new;
    write_one("webhook-token", " \n");
    cr_assert_eq(gateway_secrets_load(folder, &s, &is_new, &err), STATUS_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(err.message, "webhook-token is empty"), "%s", err.message);
    gateway_secrets_release(&s);
}

Test(secrets, a_secret_that_is_too_large_stops_the_start)
{
    struct gateway_secrets s = {0};
    struct error err;
    bool is_new;
    char *text = malloc(5000);
    memset(text, 'a', 4999);
    text[4999] = '\0';
    write_one("webhook-token", text);
    free(text);
    cr_assert_neq(gateway_secrets_load(folder, &s, &is_new, &err), STATUS_OK);
    cr_assert_not_null(strstr(err.message, "webhook-token"), "%s", err.message);
    gateway_secrets_release(&s);
}

static void change(const char *name, unsigned mode, int owner)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/secrets/%s", folder, name);
    cr_assert_eq(chmod(path, mode), 0);
    if (owner >= 0) cr_assert_eq(chown(path, (uid_t)owner, (gid_t)-1), 0);
}

Test(secrets, a_file_that_others_could_read_is_made_private_and_the_log_says_so)
{
    struct gateway_secrets secrets = {0};
    struct error err;
    bool is_new;
    write_one("invocation-key", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    write_one("webhook-token", "token");
    change("invocation-key", 0644, -1);
    change("webhook-token", 0660, -1);
    FILE *log = tmpfile();
    int stderr_fd = dup(STDERR_FILENO);
    cr_assert(log != NULL && stderr_fd >= 0 && dup2(fileno(log), STDERR_FILENO) >= 0);
    enum status s = gateway_secrets_load(folder, &secrets, &is_new, &err);
    cr_assert_geq(dup2(stderr_fd, STDERR_FILENO), 0);
    (void)close(stderr_fd);
    cr_assert_eq(s, STATUS_OK, "%s", err.message);
    cr_assert_eq(mode_of("secrets/invocation-key"), 0600);
    cr_assert_eq(mode_of("secrets/webhook-token"), 0600);
    gateway_secrets_release(&secrets);
    char text[4096] = "";
    rewind(log);
    cr_assert_gt(fread(text, 1, sizeof(text) - 1, log), 0);
    (void)fclose(log);
    cr_assert_not_null(strstr(text, "secrets/invocation-key"), "%s", text);
    cr_assert_not_null(strstr(text, "0644"), "%s", text);
    cr_assert_null(strstr(text, "0123456789abcdef"));
}

Test(secrets, a_file_of_somebody_else_is_refused)
{
    struct gateway_secrets s = {0};
    struct error err;
    bool is_new;
    if (geteuid() != 0) cr_skip("only root can give files away");
    write_one("invocation-key", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    change("invocation-key", 0600, 65534);
    cr_assert_eq(gateway_secrets_load(folder, &s, &is_new, &err), STATUS_PERMISSION_DENIED);
    cr_assert_not_null(strstr(err.message, "invocation-key belongs to user 65534"), "%s", err.message);
    gateway_secrets_release(&s);
}

static bool check(const struct gateway_secrets *s, const char *header)
{
    return gateway_secrets_check_basic(s, sv(header));
}

static bool check_plain(const struct gateway_secrets *s, const char *login, size_t len)
{
    char header[256] = "Basic ";
    (void)EVP_EncodeBlock((unsigned char *)header + 6, (const unsigned char *)login, (int)len);
    return check(s, header);
}

static const struct gateway_secrets known = {
    .user = {"admin", 5}, .password = {"pass:word", 9}, .token = {"tok", 3}, .invocation_key = {"k", 1}};

Test(secrets, basic_auth_takes_the_right_login_only)
{
    cr_assert(check_plain(&known, "admin:pass:word", 15));
    cr_assert_not(check_plain(&known, "admin:pass:wor", 14));
    cr_assert_not(check_plain(&known, "admin:pass:word!", 16));
    cr_assert_not(check_plain(&known, "Admin:pass:word", 15));
    cr_assert_not(check_plain(&known, "admin:", 6));
    cr_assert_not(check_plain(&known, ":pass:word", 10));
    cr_assert_not(check_plain(&known, "admin", 5));
    cr_assert_not(check_plain(&known, "admin:pass:word\0", 16));
    cr_assert_not(check_plain(&known, "", 0));
}

Test(secrets, a_malformed_basic_header_is_no_login)
{
    static const char *const bad[] = {"",
                                      "Basic",
                                      "Basic ",
                                      "Basic  ",
                                      "Basic =",
                                      "Basic ====",
                                      "Basic !!!!",
                                      "Basic YWRtaW4",
                                      "Bearer tok",
                                      "Basic YWRtaW46cGFzczp3b3Jk=",
                                      "Basic YWRtaW46cGFzczp3b3Jk YWRt",
                                      "Digest YWRtaW46cGFzczp3b3Jk",
                                      "Basic \xff\xff\xff\xff"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_assert_not(check(&known, bad[i]), "%s", bad[i]);
    cr_assert(check(&known, "Basic YWRtaW46cGFzczp3b3Jk"));
    cr_assert(check(&known, "basic YWRtaW46cGFzczp3b3Jk")); /* schemes have no case (RFC 9110 §11.1) */
    char *huge = malloc(100001);
    memset(huge, 'A', 100000);
    memcpy(huge, "Basic ", 6);
    huge[100000] = '\0';
    cr_assert_not(check(&known, huge));
    free(huge);
}

Test(secrets, bearer_takes_the_token_only)
{
    cr_assert(gateway_secrets_check_bearer(&known, SV("Bearer tok")));
    cr_assert(gateway_secrets_check_bearer(&known, SV("bearer tok ")));
    cr_assert_not(gateway_secrets_check_bearer(&known, SV("Bearer ")));
    cr_assert_not(gateway_secrets_check_bearer(&known, SV("Bearer to")));
    cr_assert_not(gateway_secrets_check_bearer(&known, SV("Bearer tokk")));
    cr_assert_not(gateway_secrets_check_bearer(&known, SV("Basic tok")));
    cr_assert_not(gateway_secrets_check_bearer(&known, SV("")));
}
