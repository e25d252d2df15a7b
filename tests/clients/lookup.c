/* lookup [-4|-6] [-n TIMES] [-w MILLISECONDS] NAME...
 *
 * Calls getaddrinfo() for each name and prints one line a call:
 *   NAME <tab> SECONDS <tab> ok|fail <tab> ADDRESS... or the error
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int lookup(const char *name, int family)
{
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM}, *list = NULL, *one;
    double start = now();
    int error = getaddrinfo(name, NULL, &hints, &list);

    printf("%s\t%.6f\t%s\t", name, now() - start, error ? "fail" : "ok");
    if (error)
        printf("%s", gai_strerror(error));
    for (one = list; one && !error; one = one->ai_next) {
        char text[INET6_ADDRSTRLEN] = "";
        const void *address = one->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        printf("%s%s", one == list ? "" : " ", inet_ntop(one->ai_family, address, text, sizeof text));
    }
    printf("\n");
    fflush(stdout);
    if (!error)
        freeaddrinfo(list);
    return error;
}

int main(int argc, char **argv)
{
    int family = AF_UNSPEC, times = 1, wait = 0, failed = 0, option;

    while ((option = getopt(argc, argv, "46n:w:")) != -1) {
        switch (option) {
        case '4': family = AF_INET; break;
        case '6': family = AF_INET6; break;
        case 'n': times = atoi(optarg); break;
        case 'w': wait = atoi(optarg); break;
        default: return 2;
        }
    }
    for (int round = 0; round < times; round++) {
        for (int i = optind; i < argc; i++)
            failed |= lookup(argv[i], family) != 0;
        usleep(wait * 1000);
    }
    return failed;
}
