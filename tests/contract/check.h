/* For the test programs with a main of their own: a failed claim ends the test's process with one line. */
#ifndef BALM_TESTS_CONTRACT_CHECK_H
#define BALM_TESTS_CONTRACT_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(claim)                                                                                         \
    do {                                                                                                     \
        if (!(claim)) {                                                                                      \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #claim);                            \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* A status that must be OK, else its sentence is printed. */
#define CHECK_OK(call, err)                                                                                  \
    do {                                                                                                     \
        enum status check_status = (call);                                                                   \
        if (check_status != STATUS_OK) {                                                                     \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, (err)->message);                   \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif
