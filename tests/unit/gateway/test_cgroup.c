/* What is written into a control group, on folders that only look like some; the kernel's own are in
 * tests/integration/test_scale.py. */
#include "scene.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"

static void expect_content(struct scene *s, const char *file, const char *content)
{
    struct strview text;
    CHECK_OK(s, file_read(&s->arena, scene_path(s, file), 100, &text, &s->err));
    CHECK(sv_eq(text, sv(content)));
}

static struct cgroups at(struct scene *s, int version)
{
    struct cgroups c = {0};
    for (size_t i = 0; i < CGROUP_CONTROLLERS; i++) {
        c.of[i].version = version;
        (void)snprintf(c.of[i].folder, CGROUP_PATH_MAX, "%s", s->folder);
    }
    return c;
}

static const struct cgroup_limits limits = {.memory_bytes = 1048576, .cpu_millis = 250};

static void version_2(struct scene *s)
{
    struct cgroups c = at(s, 2);
    struct cgroup group;
    CHECK_OK(s, dir_make(scene_path(s, "balm-x"), 0755, &s->err));
    CHECK(cgroup_make(&c, "x", &limits, &group, &s->err) == STATUS_NOT_FOUND); /* it is no group */
    CHECK(strstr(s->err.message, "limit memory") != NULL && !scene_has(s, "balm-x"));
    CHECK_OK(s, dir_make(scene_path(s, "balm-x"), 0755, &s->err));
    (void)scene_write(s, "balm-x/memory.max", "", 0644);
    (void)scene_write(s, "balm-x/cpu.max", "", 0644);
    CHECK_OK(s, cgroup_make(&c, "x", &limits, &group, &s->err));
    expect_content(s, "balm-x/memory.max", "1048576");
    expect_content(s, "balm-x/cpu.max", "25000 100000");
    CHECK(strcmp(group.folders[CGROUP_CPU], scene_path(s, "balm-x")) == 0);
}

Test(cgroup, limits_are_written_as_version_2_has_them, .timeout = 30)
{
    play_without_gateway(version_2);
}

static void version_1(struct scene *s)
{
    struct cgroups c = at(s, 1);
    struct cgroup group;
    struct cgroup_limits tiny = {.memory_bytes = 4096, .cpu_millis = 1};
    CHECK_OK(s, dir_make(scene_path(s, "balm-x"), 0755, &s->err));
    (void)scene_write(s, "balm-x/memory.limit_in_bytes", "", 0644);
    (void)scene_write(s, "balm-x/cpu.cfs_quota_us", "", 0644);
    CHECK_OK(s, cgroup_make(&c, "x", &tiny, &group, &s->err));
    expect_content(s, "balm-x/memory.limit_in_bytes", "4096");
    expect_content(s, "balm-x/cpu.cfs_quota_us", "1000"); /* the kernel's least */
}

Test(cgroup, limits_are_written_as_version_1_has_them, .timeout = 30)
{
    play_without_gateway(version_1);
}

static void nowhere(struct scene *s)
{
    struct cgroups c = {0};
    struct cgroup group;
    CHECK_OK(s, cgroup_make(&c, "x", &limits, &group, &s->err));
    CHECK(group.folders[CGROUP_MEMORY][0] == '\0' && group.folders[CGROUP_CPU][0] == '\0');
    c = at(s, 2);
    CHECK_OK(s, cgroup_make(&c, "x", &(struct cgroup_limits){0}, &group, &s->err));
    CHECK(!scene_has(s, "balm-x"));
    cgroup_remove(&group);
}

Test(cgroup, without_a_limit_or_a_place_nothing_is_made, .timeout = 30)
{
    play_without_gateway(nowhere);
}

Test(cgroup, cpu_is_in_cores_or_thousandths)
{
    static const struct {
        const char *text;
        int64_t millis;
    } good[] = {{"500m", 500}, {"0.5", 500}, {"2", 2000}, {"1.25", 1250}, {"0.001", 1}, {"1", 1000}};
    static const char *const bad[] = {"",     "m", "0",      "0m",  "0.0",      "-1",
                                      "1.5m", "x", "0.0001", "1.x", "99999999", "1 "};
    int64_t millis;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        cr_expect(cpu_parse_quantity(sv(good[i].text), &millis) == STATUS_OK && millis == good[i].millis,
                  "%s", good[i].text);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(cpu_parse_quantity(sv(bad[i]), &millis), STATUS_INVALID_ARGUMENT, "'%s'", bad[i]);
}

static void make_group(char path[CGROUP_PATH_MAX], const struct cgroups *c, pid_t owner)
{
    (void)snprintf(path, CGROUP_PATH_MAX, "%.*s/balm-%d-empty-1", CGROUP_PATH_MAX - 128,
                   c->of[CGROUP_MEMORY].folder, (int)owner);
    CHECK(mkdir(path, 0755) == 0);
}

/* On the kernel's own groups, where there are any for us. */
static void empty_ones(struct scene *s)
{
    (void)s;
    char living[CGROUP_PATH_MAX], dead[CGROUP_PATH_MAX];
    struct cgroups c;
    cgroups_find(&c);
    if (c.of[CGROUP_MEMORY].version == 0) return;
    pid_t child = fork();
    if (child == 0) _exit(0);
    CHECK(waitpid(child, NULL, 0) == child);
    make_group(living, &c, getppid());
    make_group(dead, &c, child);
    cgroups_find(&c);
    CHECK(access(living, F_OK) == 0 && access(dead, F_OK) != 0);
    (void)rmdir(living);
}

Test(cgroup, an_empty_group_of_a_platform_that_lives_stays, .timeout = 30)
{
    play_without_gateway(empty_ones);
}
