/* What keeps functions from each other, the platform and the host, as the platform found it at its start
 * (gateway/isolation.h): a line for each protection. */
#include "cli/doctor.h"

static void check_user(struct doctor *d, const json_t *isolation)
{
    if (json_is_true(json_object_get(isolation, "ownUser")))
        doctor_ok(d, "user", "each function runs as a user of its own, one of %.*s, without capabilities",
                  SV_ARG(json_get_text(isolation, "uids")));
    else
        doctor_skip(d, "user", "functions run as the platform's user: %.*s",
                    SV_ARG(json_get_text(isolation, "noOwnUser")));
}

/* What each version brought, so that nobody has to look it up to know what is missing. */
static void check_landlock(struct doctor *d, const json_t *isolation)
{
    int abi = (int)json_integer_value(json_object_get(isolation, "landlock"));
    if (abi == 0)
        doctor_skip(d, "landlock", "none, so functions reach what their user may: %.*s",
                    SV_ARG(json_get_text(isolation, "noLandlock")));
    else
        doctor_ok(d, "landlock", "ABI %d: files%s%s%s", abi, abi >= 4 ? ", TCP ports" : "",
                  abi >= 6 ? ", signals, abstract sockets" : "",
                  abi < 6 ? "; signals to other processes come with ABI 6 (Linux 6.12)" : "");
}

static void check_seccomp(struct doctor *d, const json_t *isolation)
{
    if (json_is_true(json_object_get(isolation, "seccomp")))
        doctor_ok(d, "seccomp", "system calls that no function needs are refused");
    else
        doctor_skip(d, "seccomp", "none: this kernel does not offer it");
}

void doctor_check_isolation(struct doctor *d)
{
    struct error err = {0};
    json_t *info = NULL;
    if (d->status == NULL) return;
    if (cli_api(&d->cfg->platform, "GET", "/system/info", NULL, &info, &err) != STATUS_OK) {
        doctor_skip(d, "isolation", "%s", err.message);
        return;
    }
    const json_t *isolation = json_object_get(info, "isolation");
    if (isolation == NULL) {
        doctor_skip(d, "isolation", "the platform is older than this balm and does not say");
    } else {
        check_user(d, isolation);
        check_landlock(d, isolation);
        check_seccomp(d, isolation);
        doctor_ok(d, "no_new_privs",
                  "no function gains rights by what it starts; it has no descriptor and no "
                  "variable of the platform's, and leaves no core file");
    }
    json_release(info);
}
