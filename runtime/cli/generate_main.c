/* `balm generate` alone: the build makes the functions with it before the platform is there. */
#include "cli/generate.h"

int main(int argc, char **argv)
{
    return generate_command(argc, argv);
}
