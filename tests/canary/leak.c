/* Says whether LeakSanitizer works with fibers: run with "leak" it must report one leak of 77 bytes (and exit
 * non-zero), run with "clean" none, although memory is then held by nothing but the stack of a suspended
 * fiber at exit.
 *
 *   leak canary:   ./leak leak   -> exit 23 with ASAN_OPTIONS=exitcode=23, and "77 byte(s)" in the report
 *   false leaks:   ./leak clean  -> exit 0 */
#include <stdio.h>

#include "loop/loop.h"

static struct fiber_scope scope;
static struct fiber_event never;

__attribute__((noinline)) static void lose(void)
{
    char *lost = malloc(77);
    if (lost == NULL) abort();
    lost[0] = 'x';
    (void)fprintf(stderr, "lost %p\n", (void *)lost);
}

/* Suspended for ever with the only pointer to its memory in its frame. */
static void hold(void *arg)
{
    char *volatile held = malloc(99);
    (void)arg;
    if (held == NULL) abort();
    held[0] = 'x';
    (void)!fiber_event_wait(&never, 0);
    free(held);
}

static void lose_in_fiber(void *arg)
{
    (void)arg;
    lose();
}

static void run(void *arg)
{
    bool leaks = *(const bool *)arg;
    fiber_event_init(&never);
    fiber_scope_init(&scope);
    if (fiber_scope_spawn(&scope, leaks ? lose_in_fiber : hold, NULL, NULL) != STATUS_OK) abort();
    if (fiber_yield() != STATUS_OK) abort();
    if (leaks)
        fiber_scope_join(&scope); /* its stack is in the pool now and may still have the pointer in it */
}

int main(int argc, char **argv)
{
    static struct loop *l; /* kept: the suspended fiber stays on it */
    bool leaks = argc > 1 && strcmp(argv[1], "leak") == 0;
    if (loop_new(&l, NULL) != STATUS_OK || loop_run_fiber(l, run, &leaks, NULL) != STATUS_OK) return 1;
    return 0;
}
