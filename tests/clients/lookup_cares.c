/* lookup_cares [-4|-6] [-n TIMES] [-w MILLISECONDS] NAME...
 *
 * ares_getaddrinfo() for each name, on one channel; prints what lookup.c prints.
 */
#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

static int failed;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void done(void *line, int status, int timeouts, struct ares_addrinfo *list)
{
    char *end = line;

    (void)timeouts;
    if (status != ARES_SUCCESS) {
        failed = 1;
        sprintf(end, "fail\t%s", ares_strerror(status));
        return;
    }
    end += sprintf(end, "ok\t");
    for (struct ares_addrinfo_node *one = list->nodes; one; one = one->ai_next) {
        char text[INET6_ADDRSTRLEN] = "";
        const void *address = one->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        if (end - (char *)line < 8000)
            end += sprintf(end, "%s%s", one == list->nodes ? "" : " ",
                           inet_ntop(one->ai_family, address, text, sizeof text));
    }
    ares_freeaddrinfo(list);
}

static void lookup(ares_channel channel, const char *name, int family)
{
    struct ares_addrinfo_hints hints = {.ai_family = family, .ai_flags = ARES_AI_NOSORT};
    char line[8192] = "";
    double start = now();

    ares_getaddrinfo(channel, name, NULL, &hints, done, line);
    while (!line[0]) {
        fd_set readers, writers;
        struct timeval limit = {.tv_sec = 1}, *next;
        FD_ZERO(&readers);
        FD_ZERO(&writers);
        int count = ares_fds(channel, &readers, &writers);
        next = ares_timeout(channel, &limit, &limit);
        select(count, &readers, &writers, NULL, next);
        ares_process(channel, &readers, &writers);
    }
    printf("%s\t%.6f\t%s\n", name, now() - start, line);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int family = AF_UNSPEC, times = 1, wait = 0, option;
    ares_channel channel;

    while ((option = getopt(argc, argv, "46n:w:")) != -1) {
        switch (option) {
        case '4': family = AF_INET; break;
        case '6': family = AF_INET6; break;
        case 'n': times = atoi(optarg); break;
        case 'w': wait = atoi(optarg); break;
        default: return 2;
        }
    }
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS || ares_init(&channel) != ARES_SUCCESS) {
        fprintf(stderr, "c-ares cannot be initialised\n");
        return 2;
    }
    for (int round = 0; round < times; round++) {
        for (int i = optind; i < argc; i++)
            lookup(channel, argv[i], family);
        usleep(wait * 1000);
    }
    ares_destroy(channel);
    ares_library_cleanup();
    return failed;
}
