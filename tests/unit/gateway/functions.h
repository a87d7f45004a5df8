#ifndef BALM_TESTS_GATEWAY_FUNCTIONS_H
#define BALM_TESTS_GATEWAY_FUNCTIONS_H

#include "function/function.h"

/* main() of the function `name`: "plain" or "bot". */
int test_function_main(const char *name, int argc, char **argv);

#endif
